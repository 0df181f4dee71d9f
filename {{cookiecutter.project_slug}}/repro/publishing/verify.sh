#!/bin/sh
# Verify the results of this archive: one command, one verdict, without make and git.
#
# It says first what it will do and what that costs. Then it compares every file with SHA256SUMS,
# finds a Python that fits, makes the environment by bootstrap.py, and starts `repro verify`, which
# does the rest. It is written for the sh, find, awk and sed that Linux and macOS have in common.
#
# shellcheck disable=SC2030,SC2031 # LC_ALL is meant for the subshell alone: it is no setting of Python's

# `make archive` writes the next three lines. In the kit they are empty, and nothing is verified.
title=''
commit=''
claims=''

usage() {
    cat << 'END'
usage: ./verify.sh [options]        (or: sh verify.sh [options])

Compare this archive's files with SHA256SUMS, make the environment, repeat the training, and give
the verdict: IDENTICAL, EQUIVALENT or DIFFERENT (REPRODUCE.md says what they mean).

  --quick        train only the first steps, for about a minute: PREFIX AGREES or PREFIX DIFFERS
  --markdown     print a few lines to paste into a review; all else goes to standard error
  --claim NAME   verify this claim (default: the first one)
  --seed N       with this seed (default: the first recorded one)
  --work DIR     work in a copy in DIR, and leave this folder alone. Without it the work is done in
                 this folder or, where that cannot be written, in a folder below ${TMPDIR:-/tmp}
  --venv DIR     take this environment as it is (conda's, or one of an earlier start), and make none
  --clean        delete what was made (the environment, the copy) after the verdict. Without it all
                 stays, so that the next start is quick
  --help         print this

PYTHON=PATH ./verify.sh takes this Python.

exit codes: 0 IDENTICAL, EQUIVALENT or PREFIX AGREES, 1 DIFFERENT or PREFIX DIFFERS, 2 there is
nothing to compare, or it could not be tried, 130 interrupted
END
}

# One line for the reader: what was found, what was expected, what to do.
refuse() {
    printf 'error: %s\n' "$1" >&2
    exit 2
}

say() {
    printf '%s\n' "$1"
}

# The name of a folder, which may not be there yet, whatever folder is entered later.
absolute() {
    above=$(cd "$(dirname "$1")" 2> /dev/null && pwd -P) || refuse "$1: there is no folder above it"
    printf '%s' "${above%/}/$(basename "$1")"
}

misused() {
    usage >&2
    refuse "$1"
}

read_options() {
    quick='' markdown='' claim='' seed='' work='' venv='' clean=''
    while [ $# -gt 0 ]; do
        case $1 in
        --claim | --seed | --work | --venv)
            case ${2:-} in
            '' | -*) misused "$1: expected a value after it" ;;
            esac
            ;;
        esac
        case $1 in
        --quick) quick=yes ;;
        --markdown) markdown=yes ;;
        --clean) clean=yes ;;
        --claim) claim=$2 && shift ;;
        --seed) seed=$2 && shift ;;
        --work) work=$(absolute "$2") && shift || exit 2 ;;
        --venv) venv=$(absolute "$2") && shift || exit 2 ;;
        -h | --help) usage && exit 0 ;;
        *) misused "found $1, which is no option: expected those above" ;;
        esac
        shift
    done
}

# The folder that this file lies in, also if it was started through links to it.
find_archive() {
    file=$0
    while [ -h "$file" ]; do
        target=$(readlink "$file")
        case $target in
        /*) file=$target ;;
        *) file=$(dirname "$file")/$target ;;
        esac
    done
    archive=$(cd "$(dirname "$file")" && pwd -P) && [ -f "$archive/SHA256SUMS" ] ||
        refuse "found no SHA256SUMS beside verify.sh: start the one of an unpacked archive"
    case $work/ in
    "$archive"/*) refuse "--work $work lies in the archive's folder: name another one" ;;
    esac
    [ -z "$venv" ] || [ -x "$venv/bin/python" ] ||
        refuse "--venv $venv has no bin/python: name an environment, or leave it out to have one made"
}

find_sum() {
    if command -v sha256sum > /dev/null; then
        sum=sha256sum
    elif command -v shasum > /dev/null; then
        sum='shasum -a 256'
    else
        refuse "found neither sha256sum nor shasum: install one (coreutils, or Perl)"
    fi
}

# The folder to work in: the archive's own, or else one that will hold a copy of it.
choose_place() {
    if [ -z "$work" ] && mkdir "$archive/.verify-$$" 2> /dev/null; then
        rmdir "$archive/.verify-$$"
        project=$archive
        return
    fi
    if [ -z "$work" ]; then # the same name each time, so that a second start finds the environment
        digest=$($sum < "$archive/SHA256SUMS" | cut -c 1-12)
        work=${TMPDIR:-/tmp}
        work=${work%/}/verify-$(id -u)-$digest
        mkdir -m 700 "$work" 2> /dev/null || is_mine "$work" ||
            refuse "$work cannot be made, or is somebody else's: name another folder by --work DIR"
    fi
    mkdir -p "$work" 2> /dev/null || refuse "$work cannot be made: name another folder by --work DIR"
    project=$work/project
    [ -z "$(ls -A "$work")" ] || [ -d "$project" ] || [ -d "$project.new" ] ||
        refuse "$work is not empty, and not of verify.sh: name another folder by --work DIR"
}

# Whether a folder is nobody else's: its name can be foretold, and others may write to /tmp.
is_mine() {
    [ -n "$(find "$1" -prune -type d -user "$(id -u)" ! -perm -020 ! -perm -002)" ] # no link to one
}

say_what_will_happen() {
    count=$(grep -c . "$archive/SHA256SUMS")
    disk=2 download=1
    if [ "$(uname -s)" != Darwin ] && grep -q '^nvidia-' "$archive/requirements.lock"; then
        disk=7 download=3
    fi
    say "$title, $commit"
    if [ "$project" != "$archive" ]; then
        stays="stays for the next start, until you delete it or --clean does"
        [ -z "$clean" ] || stays="is deleted at the end"
        say "The work is done in a copy, in $work, which $stays."
    fi
    say "It will"
    say "  1. compare $count files with SHA256SUMS;"
    if [ -n "$venv" ]; then
        say "  2. take the environment in $venv;"
    elif [ -f "$project/.venv/repro-setup.json" ]; then
        say "  2. take the environment in $project/.venv, if it is up to date;"
    else
        say "  2. make an environment in $project/.venv, once:"
        say "     up to $download GB to download, $disk GB of disk, 5 to 15 minutes;"
    fi
    if [ -n "$quick" ]; then
        say "  3. train the first steps of a claim, for about a minute, and compare them. Recorded:"
    else
        say "  3. train one seed of a claim and compare what comes out. Recorded:"
    fi
    say "$claims"
    say ""
}

# Compare all files in a folder with its SHA256SUMS. What the project's own commands write there
# (data, runs, caches) is no part of the archive and may have been added; nothing else may.
check_sums() {
    cd "$1" || refuse "$1 cannot be entered"
    if ! grep -q . SHA256SUMS || grep -Eqv '^[0-9a-f]{64} [ *].' SHA256SUMS; then
        refuse "SHA256SUMS is damaged: unpack the archive again, into an empty folder"
    fi
    faults=$(
        export LC_ALL=C
        $sum -c SHA256SUMS 2> /dev/null | sed -n 's/: FAILED.*$//p' | while IFS= read -r name; do
            if [ -e "$name" ]; then
                say "$name is damaged: unpack the archive again"
            else
                say "$name is missing: unpack the archive again"
            fi
        done
        find . \( -path ./SHA256SUMS -o -path ./.git -o -path './.venv*' -o -path ./data \
            -o -path './runs/*' ! -path ./runs/record ! -path './runs/record/*' \
            -o -path ./results/report.html -o -name __pycache__ -o -name '.*_cache' \
            -o -name .digests.json -o -name .DS_Store \) -prune -o ! -type d -print |
            awk 'NR == FNR { known[substr($0, 67)]; next }
                !(substr($0, 3) in known) { print substr($0, 3) " is not of this archive: delete it" }
            ' SHA256SUMS -
    )
    if [ -n "$faults" ]; then
        printf '%s\n' "$faults" | sed -n '1,20s/^/error: /p' >&2
        more=$(($(printf '%s\n' "$faults" | grep -c .) - 20))
        [ "$more" -lt 1 ] || refuse "and $more more files"
        exit 2
    fi
}

# Copy the archive's files, and nothing that may lie beside them, as a whole or not at all.
copy_archive() {
    if [ -d "$project" ]; then
        cmp -s "$archive/SHA256SUMS" "$project/SHA256SUMS" ||
            refuse "$work has the copy of another archive: name another folder by --work DIR"
        return
    fi
    say "copying the archive to $project"
    rm -rf "$project.new"
    if ! fault=$(copy_files 2>&1 && mv "$project.new" "$project" 2>&1); then
        rm -rf "$project.new"
        refuse "copying to $work failed (${fault##*: }): name another folder by --work DIR"
    fi
}

copy_files() {
    export LC_ALL=C
    mkdir "$project.new" || return
    made=''
    { sed 's/^.\{66\}//' "$archive/SHA256SUMS" && say SHA256SUMS; } | while IFS= read -r name; do
        folder=$project.new/$(dirname "$name")
        [ "$folder" = "$made" ] || mkdir -p "$folder" || exit
        made=$folder
        cp "$archive/$name" "$project.new/$name" || exit
    done && chmod -R u+w "$project.new"
}

# The first Python that bootstrap.py can run with; that one finds a Python that fits the lock.
find_python() {
    for python in ${PYTHON:+"$PYTHON"} python3.13 python3.12 python3.11 python3; do
        if "$python" -I -c 'import sys; sys.exit(sys.version_info < (3, 6))' 2> /dev/null; then
            return
        fi
        [ -z "${PYTHON:-}" ] || refuse "found no Python 3 that starts as PYTHON=$PYTHON"
    done
    old=$(python3 -c 'import platform; print("Python", platform.python_version())' 2> /dev/null)
    refuse "found ${old:-no Python}, expected Python 3.11 to 3.13: install one, or PYTHON=PATH"
}

make_environment() {
    [ -z "$venv" ] || return 0
    find_python
    venv=$project/.venv
    "$python" -I bootstrap.py
    code=$?
    [ $code -eq 0 ] && return
    [ $code -eq 130 ] && exit 130
    exit 2 # 1 would be a verdict
}

verify() {
    set -- verify
    [ -z "$claim" ] || set -- "$@" "$claim"
    [ -z "$seed" ] || set -- "$@" --seed "$seed"
    [ -z "$quick" ] || set -- "$@" --quick
    [ -z "$markdown" ] || set -- "$@" --markdown -
    "$venv/bin/python" -m repro "$@" >&3
    code=$?
}

# Delete what was made here, and nothing else.
delete() {
    if [ "$project" != "$archive" ]; then
        cd / && rm -rf "$project" && rmdir "$work" 2> /dev/null
    elif [ -f .venv/repro-setup.json ]; then
        rm -rf .venv
    fi
}

set -u
unset CDPATH PYTHONPATH PYTHONHOME PYTHONSAFEPATH PYTHONHASHSEED # nothing leaks in from outside
export PYTHONNOUSERSITE=1
trap 'printf "interrupted: start it again\n" >&2; exit 130' HUP INT TERM
read_options "$@"
exec 3>&1
[ -z "$markdown" ] || exec 1>&2
find_archive
find_sum
choose_place
say_what_will_happen
check_sums "$archive"
if [ "$project" != "$archive" ]; then
    copy_archive
    check_sums "$project"
fi
cd "$project" || exit 2
make_environment
verify
[ -z "$clean" ] || delete
exit "$code"
