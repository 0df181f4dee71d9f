"""Secrets that are known by what stands around them: the names of services, commands, file formats.

The sources are those of secret_tokens.py, and manuals. A text is searched for the words of a rule
before its pattern is compiled. Patterns begin at a boundary and repeat boundedly, so that the time
is linear in the text: a line of a megabyte takes a second.
"""

from typing import NamedTuple

_HEX = "0-9a-f"


class Rule(NamedTuple):
    """A secret that is known by what stands around it; the group `value` of `pattern` is masked.

    `words`: one of them, in lower case, stands in every text that has a match. `example`: a text
    whose secret is PLANTED; in it {40} is so many digits of hexadecimal, {w43} of base64.
    """

    name: str
    words: tuple[str, ...]
    pattern: str
    source: str
    example: str


_END = r"(?![\w-])"
_USER = r"""["']?[^\s"':,]{1,80}:"""
_SPACE = r"[ \t]{1,4}"
_OPTION = r"""["']?[ \t,=]{1,4}["']?"""
_VALUE = r"""(?P<value>[^\s"'$<{,()\\-][^\s"',()\\]{3,})"""
_JOINED = r"""(?P<value>[^\s"'$<{,()\\=-][^\s"',()\\]{3,})"""
_NEXT = r"[ \t]*\r?\n[+\- ]?[ \t]*"

CONTEXTS = (
    Rule(
        "a JSON Web Token",
        ("eyj",),
        r"(?<![A-Za-z0-9])(?P<value>eyJ[\w-]{8,400}\.[\w-]{8,}\.[\w-]{0,1000})",
        "gitleaks",
        "t = eyJhbGciOiJI.eyPLANTED1.abcdefghij",
    ),
    Rule(
        "W&B beside its name",
        ("wandb", "weights"),
        rf"(?i)(?:wandb|weights.{{0,5}}biases)[^\n]{{0,80}}?(?<![\w@/.-])(?P<value>[{_HEX}]{{40}}){_END}",
        "betterleaks",
        'wandb.login(key="{40}")',
    ),
    Rule(
        "W&B as a key",
        ("key",),
        rf"""(?i)key["'\]]{{0,2}}[ \t]{{0,4}}[=:][ \t]{{0,4}}["'](?P<value>[{_HEX}]{{40}})["']""",
        "betterleaks",
        'key = "{40}"',
    ),
    Rule(
        "OpenAI",
        ("sk-",),
        r"(?<![A-Za-z0-9])(?P<value>sk-(?=[a-z-]{0,40}[A-Z0-9])[\w-]{20,})",
        "gitleaks",
        "sk-PLANTED1{40}",
    ),
    Rule(
        "Discord bot",
        (".",),
        rf"(?<![\w.-])(?P<value>[MNO](?=[\w-]{{0,26}}\d)[\w-]{{23,27}}\.[\w-]{{6}}\.[\w-]{{27,40}}){_END}",
        "detect-secrets",
        "client.run(M{w25}.{w6}.{w30})",
    ),
    Rule(
        "Discord beside its name",
        ("discord",),
        rf"""(?i)discord[\w.-]{{0,20}}["'\]]{{0,3}}[ \t]{{0,4}}[=:][ \t]{{0,4}}["']?"""
        rf"(?P<value>[{_HEX}]{{64}}|[\w=-]{{32}}){_END}",
        "gitleaks",
        "DISCORD_CLIENT = {w32}",
    ),
    Rule(
        "a webhook",
        ("hook",),
        r"(?:hooks\.slack\.com/(?:services|workflows|triggers)/|discord(?:app)?\.com/api/webhooks/"
        r"|webhook\.office\.com/webhookb2/|hooks\.zapier\.com/hooks/catch/)"
        r"(?P<value>[\w/@+.=-]{16,})",
        "gitleaks, detect-secrets",
        "https://discord.com/api/webhooks/123456789/PLANTED-{w43}",
    ),
    Rule(
        "Telegram bot",
        (":a",),
        rf"(?<!\d)(?P<value>\d{{8,10}}:A[\w-]{{32,35}}){_END}",
        "detect-secrets, gitleaks",
        "bot = 123456789:AA{w33}",
    ),
    Rule(
        "Azure AD client",
        ("q~",),
        r"(?<![\w.~-])(?P<value>[\w~.]{3}\dQ~[\w~.-]{31,34})(?![\w.~-])",
        "gitleaks",
        "secret: abc8Q~{w33}",
    ),
    Rule(
        "Mailchimp",
        ("-us",),
        rf"(?<![\w-])(?P<value>[{_HEX}]{{32}}-us\d{{1,2}}){_END}",
        "gitleaks",
        "{32}-us12",
    ),
    Rule(
        "Airtable",
        ("pat",),
        rf"(?<![\w-])(?P<value>pat[A-Za-z0-9]{{14}}\.[{_HEX}]{{64}}){_END}",
        "gitleaks",
        "pat{w14}.{64}",
    ),
    Rule(
        "Terraform Cloud",
        (".atlasv1.",),
        r"(?<![\w-])(?P<value>[A-Za-z0-9]{14}\.atlasv1\.[\w=-]{60,70})",
        "gitleaks",
        "{w14}.atlasv1.{w65}",
    ),
    Rule(
        "a key beside the name of an AI service",
        ("cohere", "mistral", "together", "deepseek", "deepgram", "assemblyai", "elevenlabs"),
        r"""(?i)(?:cohere|mistral|together|deepseek|deepgram|assemblyai|elevenlabs)[\w.-]{0,20}"""
        r"""["'\]]{0,3}[ \t]{0,4}[=:(][ \t]{0,4}["'](?P<value>(?=[a-z]{0,40}\d)[\w-]{32,})["']""",
        "gitleaks, betterleaks",
        'cohere = "{w40}"',
    ),
    Rule(
        "a signed URL of AWS or Google",
        ("x-amz-", "x-goog-"),
        r"""(?i)x-(?:amz|goog)-(?:signature|credential|security-token)["']?(?:=|%3d|:[ \t]?)["']?"""
        r"""(?P<value>[^&\s"'<>\\]{8,})""",
        "detect-secrets; AWS Signature Version 4",
        "https://bucket.s3.amazonaws.com/x?X-Amz-Signature=PLANTED1{40}&X-Amz-Expires=60",
    ),
    Rule(
        "a signed URL of Azure",
        ("sig=", "sig%3d"),
        r"(?i)(?<![a-z0-9_])sig(?:=|%3d)(?P<value>(?=[a-z+/]{0,80}[0-9%])[a-z0-9%+/]{20,}={0,2})",
        "detect-secrets; shared access signatures",
        "https://account.blob.core.windows.net/x?sv=2024-01-01&sig=PLANTED1{40}%3D",
    ),
    Rule(
        "another signed URL",
        ("signature=",),
        r"(?i)[?&;](?:signature|googlesignature)=(?P<value>[\w%+/~.=-]{16,})",
        "CloudFront and S3, version 2",
        "https://cdn.example.org/x?Expires=1&Signature=PLANTED1{40}&Key-Pair-Id=K1",
    ),
    Rule(
        ".pgpass",
        (":",),
        r"(?m)^[+\- ]?(?:[\w.*-]{1,80}):(?:\d{4,5}|\*):(?:[A-Za-z_*][\w*-]{0,60}):[\w.*@-]{1,60}:"
        r"(?P<value>[^\s:]{6,})[ \t\r]*$",
        "PostgreSQL's manual: The Password File",
        "db.example.org:5432:study:me:PLANTED1",
    ),
    Rule(
        ".netrc",
        ("password",),
        rf"(?i)\blogin[ \t]{{1,4}}\S{{1,80}}(?:[ \t]{{1,4}}|{_NEXT})(?:password)[ \t]{{1,4}}"
        r"(?P<value>[^\s$<{]\S{3,})",
        "curl's manual: .netrc",
        "machine api.example.org\n+  login me\n+  password PLANTED1",
    ),
    Rule(
        "a login of two texts",
        ("auth", "login"),
        r"""(?:auth["']?[ \t]{0,4}[=:][ \t]{0,4}|HTTP(?:Basic|Digest|Proxy)Auth|BasicAuth"""
        r"""|\.login)"""
        r"""[(\[][\s+]{0,40}[bfruBFRU]{0,2}["'][^"'\n]{1,80}["'],[\s+]{0,40}[bfruBFRU]{0,2}"""
        r"""(?P<quote>["'])(?P<value>((?!(?P=quote))(\\.|[^\\\n])){4,200})(?P=quote)""",
        "detect-secrets; the manuals of requests and aiohttp",
        'requests.get(url, auth=("me", "PLANTED1"))',
    ),
    Rule(
        "SQL",
        ("identified by", "password '"),
        r"(?i)(?:identified by|(?:with|set|user|role)[^\n']{0,40} password)[ \t]{1,4}"
        r"'(?P<value>[^'\n]{4,})'",
        "the manuals of MySQL and PostgreSQL",
        "CREATE USER me IDENTIFIED BY 'PLANTED1'",
    ),
    Rule(
        "a connection string",
        ("pwd=", "pwd ="),
        r"""(?i);[ \t]{0,4}pwd[ \t]{0,4}=[ \t]{0,4}(?P<value>[^;"'\s{]{4,})""",
        "the manuals of ODBC",
        "Server=db;Uid=me;Pwd=PLANTED1;",
    ),
    Rule(
        "XML",
        ("</",),
        r"(?i)<(?P<key>[\w.:-]{0,40}(?:password|passwd|secret|token|apikey|api_key))>"
        r"(?P<value>[^<>\s]{4,})</(?P=key)>",
        "gitleaks",
        "<serverPassword>PLANTED1</serverPassword>",
    ),
    Rule(
        "a header",
        ("authorization", "token", "key"),
        r"""(?i)(?:authorization|(?:private|job|deploy|auth|access|security)-token"""
        r"""|x-[a-z-]{0,30}(?:token|key)|api-?key)[ \t]{0,2}:[ \t]{0,2}"""
        r"""(?:(?:basic|bearer|token|apikey|bot|digest)[ \t]{1,2})?"""
        r"""(?P<value>[^\s"'$<{}\\,()]{8,})(?=["'\\])""",
        "gitleaks",
        "curl -H 'PRIVATE-TOKEN: PLANTED1' https://gitlab.example.org",
    ),
    Rule(
        "a scheme of authorization",
        ("bearer ", "authorization: "),
        r"(?:(?<=[Bb]earer )|(?<=uthorization: Basic )|(?<=uthorization: token ))"
        r"(?P<value>[\w.~+/=-]{8,})",
        "gitleaks",
        "curl -H 'Authorization: Bearer PLANTED1'",
    ),
    Rule(
        "the login of a URL",
        ("://",),
        r"(?<=://)(?P<value>(?!git@|(\$?\{\w*\}:?)+@|user(?:name)?:(?:pass|password|pw)@)"
        r"[^\s/\"'<>]{1,512}(?=@))",
        "detect-secrets",
        "https://me:PLANTED1@host/x",
    ),
)

# Secrets among the words of a command, which may go on after "\": by what the line has to hold.
COMMANDS = (
    Rule(
        "curl -u",
        ("curl", "wget"),
        rf"(?<![\w-])(?:-u|-U|--user|--proxy-user)(?:{_OPTION})?{_USER}{_JOINED}",
        "gitleaks",
        "curl -sS -u me:PLANTED1 https://example.org",
    ),
    Rule(
        "a login of a command",
        (" login", '"login"', "'login'", "twine", "mongo", "kinit"),
        rf"(?<![\w-])(?:-p|--password){_OPTION}{_VALUE}",
        "betterleaks",
        "docker login -u me -p PLANTED1 registry.example.org",
    ),
    Rule(
        "wandb login",
        ("wandb login",),
        rf"wandb login{_SPACE}(?:--\S{{1,40}}{_SPACE}){{0,4}}{_VALUE}",
        "W&B's manual",
        "wandb login PLANTED1",
    ),
    Rule(
        "mysql -p",
        ("mysql", "mariadb", "sshpass"),
        rf"(?<![\w-])-p(?:{_OPTION})?{_JOINED}",
        "MySQL's manual",
        "mysqldump -u root -pPLANTED1 study",
    ),
    Rule(
        "other options of commands",
        ("redis-cli", "sqlcmd", "ldapsearch", "smbclient", "lftp", "openssl", "unzip", "7z"),
        rf"(?<![\w-])(?:-pass(?:in|out)?{_OPTION}pass:|-(?:a|w|P){_OPTION}|-p(?!ass)"
        rf"|-U{_OPTION}[^\s%]{{1,40}}%|-u{_OPTION}[^\s,]{{1,40}},){_JOINED}",
        "the commands' manuals",
        "openssl rsa -passin pass:PLANTED1 -in x",
    ),
)
