"""Words that stand where names do and tell nobody: accounts and hosts that systems come with."""

_ACCOUNTS_AND_HOSTS = (
    "account actions admin administrator anonymous app appuser author authors builder buildkit",
    "centos codespace computer container contributors data debian default dependabot desktop dev",
    "developer devcontainer docker ec2-user email example fedora github gitlab guest home host",
    "jovyan laptop linux local localdomain localhost macbook machine mail mambauser microsoft",
    "maintainer maintainers nobody none noreply owner owners people project public root",
    "reproducibility runner server service shared someone staff student students system team temp",
    "test tester testing tests ubuntu unknown user username users vagrant vscode web-flow webflow",
    "windows work worker workspace workstation",
)
_PHRASES = {"the authors", "the author", "anonymous authors", "your name", "the contributors"}
NOBODY = frozenset(word for line in _ACCOUNTS_AND_HOSTS for word in line.split()) | _PHRASES

_PUBLIC_HOSTS = (
    "github.com gitlab.com bitbucket.org codeberg.org git.sr.ht huggingface.co hf.co gitee.com",
    "dev.azure.com ssh.dev.azure.com notabug.org sourceforge.net git.code.sf.net gist.github.com",
    "api.wandb.ai wandb.ai doi.org zenodo.org arxiv.org",
)
FORGES = frozenset(host for line in _PUBLIC_HOSTS for host in line.split())

# Where people have e-mail addresses whatever institution they are of.
_MAIL = (
    "gmail.com googlemail.com outlook.com hotmail.com live.com yahoo.com icloud.com me.com aol.com",
    "proton.me protonmail.com gmx.de gmx.net web.de mail.com mail.ru yandex.ru qq.com 163.com",
    "126.com example.com example.org example.net",
)
PROVIDERS = frozenset(domain for line in _MAIL for domain in line.split())

# A folder in one of these is the system's: /usr/local. One in /data or /scratch is a group's.
_SYSTEM = "usr var opt lib etc tmp srv run dev proc sys bin root private"
SYSTEM_FOLDERS = frozenset(_SYSTEM.split())


def domain_is_everybodys(domain: str) -> bool:
    """Tell whether addresses of all sorts of people, or of a machine's own users, have a domain."""
    domain = domain.casefold()
    no_network = "." not in domain and domain in NOBODY
    of_a_service = "noreply" in domain.split(".") or domain.startswith("localhost.")
    return no_network or of_a_service or domain in PROVIDERS or domain in FORGES
