"""Messages to Slack: how they are worded, and how they get there. None holds a record's value, a token or a secret."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from http.client import HTTPException

from dagster_slack import SlackResource
from slack_sdk.errors import SlackApiError, SlackClientError
from slack_sdk.webhook import WebhookClient

from edfi_dagster.config import ConfigError, Secret
from edfi_dagster.config.models import Slack

# A tick sends five messages at most and has sixty seconds: a Slack that hangs must not end it.
_TIMEOUT_SECONDS = 5
_LISTED = 10
_LONGEST_CAUSE = 200
_LONGEST_TEXT = 3500


class NotSent(Exception):
    """Slack did not take a message; says why, without its address."""


class Channel:
    """Where messages go: a bot's channel, or an incoming webhook. ``api`` is the root of Slack's API, if not Slack's."""

    def __init__(self, slack: Slack, *, api: str | None = None) -> None:
        self._slack = slack
        self._api = api

    def send(self, text: str) -> None:
        """Send a message in Slack's own markup. Raises NotSent."""
        try:
            if self._slack.webhook_url is not None:
                self._send_by_webhook(self._slack.webhook_url, text)
            elif self._slack.token is not None and self._slack.channel is not None:
                self._send_by_token(self._slack.token, self._slack.channel, text)
        except ConfigError as error:
            raise NotSent(str(error)) from None
        except SlackApiError as error:
            raise NotSent(f"Slack refuses it ({error.response['error']})") from None
        except (SlackClientError, HTTPException, OSError, ValueError) as error:
            raise NotSent(f"Slack cannot be reached ({type(error).__name__})") from None

    def _send_by_token(self, token: Secret, channel: str, text: str) -> None:
        client = SlackResource(token=token.read()).get_client()
        client.timeout = _TIMEOUT_SECONDS
        if self._api is not None:
            client.base_url = self._api
        client.chat_postMessage(channel=channel, text=text, unfurl_links=False)

    def _send_by_webhook(self, url: Secret, text: str) -> None:
        answer = WebhookClient(url.read(), timeout=_TIMEOUT_SECONDS).send(text=text)
        if answer.status_code != 200:
            raise NotSent(f"the webhook answers HTTP {answer.status_code}")


def failure_text(place: str, job: str, causes: Sequence[str], failures: Mapping[str, str], link: str) -> str:
    """A failed run: whose, what failed and why. ``failures`` maps endpoint → cause; ``causes`` are of the whole run."""
    heading = f":x: *{escaped(place)}*: {escaped(job)} failed"
    listed = [f"• {_cause(place, cause)}" for cause in causes]
    listed += [
        f"• `{escaped(label)}`: {_cause(f'{place} {label}', cause)}" for label, cause in failures.items()
    ]
    if failures:
        heading += f", {len(failures)} endpoint{'s' if len(failures) > 1 else ''}; the rest is committed"
    return _joined(heading, listed, link)


def success_text(place: str, job: str, changed: int, rows: int, minutes: float, link: str) -> str:
    """A run that succeeded, and what it brought."""
    heading = f":white_check_mark: *{escaped(place)}*: {escaped(job)} done in {minutes:.1f} min, "
    brought = f"{changed:,} tables changed, {rows:,} rows loaded" if changed else "nothing had changed"
    return _joined(heading + brought, [], link)


def late_text(sentences: Sequence[str], link: str) -> str:
    """Tenants and years that have become late, one sentence each."""
    heading = f":hourglass: {len(sentences)} late" if len(sentences) > 1 else ":hourglass: late"
    return _joined(heading, [f"• {escaped(sentence)}" for sentence in sentences], link)


def escaped(text: str) -> str:
    """Text that Slack shows as it is."""
    return text.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;")


def _cause(known: str, cause: str) -> str:
    """The first line of a cause, without the names that stand in front of it already."""
    line = cause.strip().partition("\n")[0].removeprefix(known).removeprefix(":").strip()
    return escaped(line if len(line) <= _LONGEST_CAUSE else f"{line[: _LONGEST_CAUSE - 1]}…")


def _joined(heading: str, lines: Sequence[str], link: str) -> str:
    shown = list(lines[:_LISTED])
    while shown and sum(map(len, shown)) > _LONGEST_TEXT - len(heading) - len(link):
        shown.pop()
    if len(shown) < len(lines):
        shown.append(f"… and {len(lines) - len(shown)} more")
    return "\n".join([heading, *shown, link])
