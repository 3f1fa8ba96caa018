"""Whether Slack messages can be sent. No message is."""

from __future__ import annotations

import re

from edfi_dagster.config import ConfigError, Platform
from edfi_dagster.health.findings import Block, Finding, explained, failed, ok

SLACK_API = "https://slack.com/api/"
_ASK_SECONDS = 10
# Tokens of bots and users, and those that are exchanged for new ones.
_TOKEN = re.compile(r"xox[bpe][.-]\S+")
_WEBHOOK = re.compile(r"https?://\S+")


def examine_slack(platform: Platform, *, ask: bool, api: str = SLACK_API) -> Block | None:
    """The form of token or webhook; with ``ask`` also Slack's own word on the token. None where there is no slack block."""
    slack = platform.slack
    if slack is None:
        return None
    secret, question = (slack.token, "token") if slack.token else (slack.webhook_url, "webhook_url")
    assert secret is not None
    try:
        value = secret.read()
    except ConfigError as error:
        finding = explained(question, str(error), "set it")
    else:
        finding = _form(question, value)
        if ask and slack.token and not finding.remedy:
            finding = _identity(value, api)
    return Block("slack", slack.channel or "webhook", (finding,))


def _form(question: str, value: str) -> Finding:
    if question == "token":
        if _TOKEN.fullmatch(value):
            return ok(question, "is there, and looks like one; --ask-slack has Slack look at it")
        return failed(
            question, "is none: those of Slack begin with xoxb-", "take the bot user OAuth token of your app"
        )
    if _WEBHOOK.fullmatch(value):
        return ok(question, "is there, and is an address")
    return failed(
        question, "is no address", "take the webhook URL of your app, https://hooks.slack.com/services/…"
    )


def _identity(token: str, api: str) -> Finding:
    from slack_sdk import WebClient
    from slack_sdk.errors import SlackApiError, SlackClientError

    try:
        answer = WebClient(token, base_url=api, timeout=_ASK_SECONDS).auth_test()
    except SlackApiError as error:
        return failed(
            "token",
            f"Slack refuses it ({error.response['error']})",
            "take the bot user OAuth token of your app",
        )
    except (SlackClientError, OSError) as error:
        return failed("token", f"Slack cannot be reached ({type(error).__name__})", "check network and proxy")
    return ok("token", f"{answer.get('user')} of {answer.get('team')}")
