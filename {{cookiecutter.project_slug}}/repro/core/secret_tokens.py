"""Tokens that are known by how they begin, one a line: name, prefix, alphabet, length, source.

Formats are facts. They are taken from lists that are kept up, read in November 2026:
gitleaks: config/gitleaks.toml of github.com/gitleaks/gitleaks, commit 009e025
betterleaks: cmd/generate/config/rules of github.com/betterleaks/betterleaks, gitleaks' successor
detect-secrets: detect_secrets/plugins of github.com/Yelp/detect-secrets
trufflehog: pkg/detectors of github.com/trufflesecurity/trufflehog
To add one, add a line: tests/unit/test_secrets.py of the template makes an example of each.
"""

from typing import NamedTuple

_HEX = "0-9a-f"
_LETTERS = "A-Za-z0-9"
_UPPER = "A-Z0-9"
_NAME = r"\w-"
_BASE64 = r"\w+/=-"
_DOTTED = r"\w=.-"


class Token(NamedTuple):
    """A token that begins with `prefix`: of at least `shortest` characters of `alphabet` after it.

    `shortest` may be less than today's length: formats grow, and examples in files are cut.
    """

    name: str
    prefix: str
    alphabet: str
    shortest: int
    source: str


TOKENS = (
    Token("1Password service account", "ops_eyJ", _BASE64, 100, "gitleaks"),
    Token("age", "AGE-SECRET-KEY-1", _UPPER, 58, "gitleaks"),
    Token("Alibaba Cloud", "LTAI", _LETTERS, 20, "gitleaks"),
    Token("Anthropic", "sk-ant-", _NAME, 20, "gitleaks"),
    Token("Artifactory", "AKCp", _LETTERS, 60, "gitleaks"),
    Token("Artifactory reference", "cmVmd", _LETTERS, 59, "gitleaks"),
    Token("Atlassian", "ATATT3", _DOTTED, 100, "gitleaks"),
    Token("AWS key", "AKIA", _UPPER, 16, "gitleaks"),
    Token("AWS temporary key", "ASIA", _UPPER, 16, "gitleaks"),
    Token("AWS bearer key", "ABIA", _UPPER, 16, "gitleaks"),
    Token("AWS context key", "ACCA", _UPPER, 16, "gitleaks"),
    Token("AWS other key", "AKSA", _UPPER, 16, "known here before"),
    Token("AWS Bedrock", "ABSK", _BASE64, 100, "gitleaks"),
    Token("Cloudflare origin CA", "v1.0-", rf"{_HEX}-", 140, "gitleaks"),
    Token("Clojars", "CLOJARS_", "a-z0-9", 60, "gitleaks"),
    Token("Databricks", "dapi", _HEX, 32, "gitleaks"),
    Token("Databricks OAuth", "dose", _HEX, 32, "trufflehog"),
    Token("Databricks access", "dkea", _HEX, 32, "trufflehog"),
    Token("DigitalOcean", "dop_v1_", _HEX, 64, "gitleaks"),
    Token("DigitalOcean OAuth", "doo_v1_", _HEX, 64, "gitleaks"),
    Token("DigitalOcean refresh", "dor_v1_", _HEX, 64, "gitleaks"),
    Token("Docker Hub", "dckr_pat_", _NAME, 20, "betterleaks"),
    Token("Docker Hub organization", "dckr_oat_", _NAME, 20, "betterleaks"),
    Token("Doppler", "dp.pt.", _LETTERS, 40, "gitleaks"),
    Token("Dynatrace", "dt0c01.", rf"{_LETTERS}.", 80, "gitleaks"),
    Token("Facebook page", "EAAC", _LETTERS, 100, "gitleaks"),
    Token("Fly.io", "fo1_", _NAME, 43, "gitleaks"),
    Token("Fly.io macaroon", "fm2_", _BASE64, 100, "gitleaks"),
    Token("GitHub", "ghp_", r"\w", 20, "gitleaks"),
    Token("GitHub OAuth", "gho_", r"\w", 20, "gitleaks"),
    Token("GitHub app", "ghs_", r"\w", 20, "gitleaks"),
    Token("GitHub app user", "ghu_", r"\w", 20, "gitleaks"),
    Token("GitHub refresh", "ghr_", r"\w", 20, "gitleaks"),
    Token("GitHub fine-grained", "github_pat_", r"\w", 20, "gitleaks"),
    Token("GitLab", "glpat-", _DOTTED, 16, "gitleaks"),
    Token("GitLab agent", "glagent-", _NAME, 40, "gitleaks"),
    Token("GitLab CI job", "glcbt-", _NAME, 20, "gitleaks"),
    Token("GitLab deploy", "gldt-", _NAME, 16, "gitleaks"),
    Token("GitLab feature flags", "glffct-", _NAME, 16, "gitleaks"),
    Token("GitLab feed", "glft-", _NAME, 16, "gitleaks"),
    Token("GitLab mail", "glimt-", _NAME, 16, "gitleaks"),
    Token("GitLab OAuth", "gloas-", _NAME, 40, "gitleaks"),
    Token("GitLab runner", "glrt-", _DOTTED, 16, "gitleaks"),
    Token("GitLab runner registration", "GR1348941", _NAME, 16, "gitleaks"),
    Token("GitLab SCIM", "glsoat-", _NAME, 16, "gitleaks"),
    Token("GitLab trigger", "glptt-", _HEX, 32, "gitleaks"),
    Token("GitLab session", "_gitlab_session=", "a-z0-9", 32, "gitleaks"),
    Token("Google API", "AIza", _NAME, 30, "gitleaks"),
    Token("Google OAuth", "ya29.", _NAME, 20, "trufflehog"),
    Token("Google OAuth client", "GOCSPX-", _NAME, 20, "trufflehog"),
    Token("Google refresh", "1//0", _NAME, 40, "trufflehog"),
    Token("Grafana Cloud", "glc_", _BASE64, 32, "gitleaks"),
    Token("Grafana", "glsa_", r"\w", 40, "gitleaks"),
    Token("Groq", "gsk_", _LETTERS, 32, "trufflehog"),
    Token("Heroku", "HRKU-AA", _NAME, 50, "gitleaks"),
    Token("Hugging Face", "hf_", _LETTERS, 20, "gitleaks"),
    Token("Hugging Face organization", "api_org_", _LETTERS, 20, "gitleaks"),
    Token("Infracost", "ico-", _LETTERS, 32, "gitleaks"),
    Token("LangSmith", "lsv2_pt_", r"\w", 32, "betterleaks"),
    Token("LangSmith service", "lsv2_sk_", r"\w", 32, "betterleaks"),
    Token("Linear", "lin_api_", _LETTERS, 40, "gitleaks"),
    Token("Mailgun", "key-", _HEX, 32, "gitleaks"),
    Token("Netlify", "nfp_", _LETTERS, 36, "betterleaks"),
    Token("New Relic", "NRAK-", _UPPER, 27, "gitleaks"),
    Token("Notion", "ntn_", _LETTERS, 40, "gitleaks"),
    Token("npm", "npm_", _LETTERS, 30, "gitleaks"),
    Token("NVIDIA", "nvapi-", _NAME, 40, "betterleaks"),
    Token("OpenAI project", "sk-proj-", _NAME, 16, "gitleaks"),
    Token("OpenAI service account", "sk-svcacct-", _NAME, 16, "gitleaks"),
    Token("OpenAI admin", "sk-admin-", _NAME, 16, "gitleaks"),
    Token("OpenRouter", "sk-or-v1-", _HEX, 32, "trufflehog"),
    Token("OpenShift", "sha256~", _NAME, 40, "gitleaks"),
    Token("Perplexity", "pplx-", _LETTERS, 40, "gitleaks"),
    Token("Pinecone", "pcsk_", r"\w", 40, "betterleaks"),
    Token("PlanetScale", "pscale_tkn_", _DOTTED, 32, "gitleaks"),
    Token("PlanetScale OAuth", "pscale_oauth_", _DOTTED, 32, "gitleaks"),
    Token("PlanetScale password", "pscale_pw_", _DOTTED, 32, "gitleaks"),
    Token("Postman", "PMAK-", rf"{_HEX}-", 50, "gitleaks"),
    Token("Prefect", "pnu_", _LETTERS, 36, "gitleaks"),
    Token("Pulumi", "pul-", _HEX, 40, "gitleaks"),
    Token("PyPI", "pypi-AgE", _NAME, 30, "gitleaks"),
    Token("ReadMe", "rdme_", "a-z0-9", 70, "gitleaks"),
    Token("Replicate", "r8_", _LETTERS, 30, "betterleaks"),
    Token("RubyGems", "rubygems_", _HEX, 48, "gitleaks"),
    Token("SendGrid", "SG.", _DOTTED, 40, "gitleaks"),
    Token("Sendinblue", "xkeysib-", rf"{_LETTERS}-", 64, "gitleaks"),
    Token("Sentry user", "sntryu_", _HEX, 64, "gitleaks"),
    Token("Sentry organization", "sntrys_", _BASE64, 40, "gitleaks"),
    Token("Shippo", "shippo_live_", "A-Fa-f0-9", 40, "gitleaks"),
    Token("Shopify", "shpat_", "A-Fa-f0-9", 32, "gitleaks"),
    Token("Shopify custom", "shpca_", "A-Fa-f0-9", 32, "gitleaks"),
    Token("Shopify private", "shppa_", "A-Fa-f0-9", 32, "gitleaks"),
    Token("Shopify shared", "shpss_", "A-Fa-f0-9", 32, "gitleaks"),
    Token("Slack app", "xapp-", _NAME, 16, "gitleaks"),
    Token("Slack bot", "xoxb-", _NAME, 10, "gitleaks"),
    Token("Slack cookie", "xoxd-", r"\w%+/=-", 10, "trufflehog"),
    Token("Slack client", "xoxc-", _NAME, 10, "trufflehog"),
    Token("Slack configuration", "xoxe-", _NAME, 10, "gitleaks"),
    Token("Slack configuration access", "xoxe.xox", _DOTTED, 10, "gitleaks"),
    Token("Slack user", "xoxp-", _NAME, 10, "gitleaks"),
    Token("Slack workspace", "xoxa-", _NAME, 10, "gitleaks"),
    Token("Slack refresh", "xoxr-", _NAME, 10, "gitleaks"),
    Token("Slack legacy", "xoxs-", _NAME, 10, "gitleaks"),
    Token("Slack legacy other", "xoxo-", _NAME, 10, "gitleaks"),
    Token("Square", "sq0atp-", _NAME, 20, "gitleaks"),
    Token("Square OAuth", "sq0csp-", _NAME, 20, "detect-secrets"),
    Token("Stripe", "sk_live_", _LETTERS, 10, "gitleaks"),
    Token("Stripe test", "sk_test_", _LETTERS, 10, "gitleaks"),
    Token("Stripe production", "sk_prod_", _LETTERS, 10, "gitleaks"),
    Token("Stripe restricted", "rk_live_", _LETTERS, 10, "gitleaks"),
    Token("Stripe restricted test", "rk_test_", _LETTERS, 10, "gitleaks"),
    Token("Stripe restricted production", "rk_prod_", _LETTERS, 10, "gitleaks"),
    Token("Stripe webhook", "whsec_", r"\w+/=", 24, "trufflehog"),
    Token("Supabase", "sbp_", _HEX, 40, "trufflehog"),
    Token("Tailscale", "tskey-", _NAME, 20, "trufflehog"),
    Token("Twilio", "SK", _HEX, 32, "gitleaks"),
    Token("Vault", "hvs.", _NAME, 80, "gitleaks"),
    Token("Vault batch", "hvb.", _NAME, 80, "gitleaks"),
    Token("W&B", "wandb_v1_", r"\w", 40, "betterleaks"),
    Token("W&B server", "local-", _HEX, 40, "trufflehog"),
    Token("xAI", "xai-", _LETTERS, 60, "trufflehog"),
)
