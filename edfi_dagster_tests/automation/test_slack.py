"""What messages say, and what becomes of those that Slack does not take."""

from __future__ import annotations

import pytest

from edfi_dagster.automation.slack import Channel, NotSent, failure_text, late_text, success_text
from edfi_dagster.config.models import Slack
from edfi_dagster_tests.automation.slack_stand_in import SlackStandIn

BOT = Slack.model_validate({"token": {"env": "SLACK_TOKEN"}, "channel": "#edfi"})
WEBHOOK = Slack.model_validate({"webhook_url": {"env": "SLACK_WEBHOOK"}})
LINK = "<http://localhost:3000/runs/abc|run abc>"


def test_a_failure_names_place_endpoints_and_first_causes_once() -> None:
    causes = {
        "ed-fi/students": "grand_bend/2025 ed-fi/students: HTTP 403 <forbidden> & loaded before\nmore of it",
        "ed-fi/sessions/deletes": "HTTP 500",
    }
    assert failure_text("grand_bend/2025", "extract_and_load", [], causes, LINK).split("\n") == [
        ":x: *grand_bend/2025*: extract_and_load failed, 2 endpoints; the rest is committed",
        "• `ed-fi/students`: HTTP 403 &lt;forbidden&gt; &amp; loaded before",
        "• `ed-fi/sessions/deletes`: HTTP 500",
        LINK,
    ]


def test_a_failure_of_the_whole_run_says_why() -> None:
    text = failure_text("a/2025", "extract_and_load", ["a/2025: the ODS refused the key"], {}, LINK)
    assert text == f":x: *a/2025*: extract_and_load failed\n• the ODS refused the key\n{LINK}"


def test_lists_and_lines_are_bounded_and_the_link_stays() -> None:
    many = {f"ed-fi/endpoint{n}": "x" * 5_000 for n in range(300)}
    lines = failure_text("a/2025", "extract_and_load", [], many, LINK).split("\n")
    assert len(lines) == 13
    assert lines[-2:] == ["… and 290 more", LINK]
    assert max(map(len, lines)) < 300
    assert sum(map(len, lines)) < 4_000
    assert late_text([f"t{n}/2025: late" for n in range(500)], LINK).startswith(
        ":hourglass: 500 late\n• t0/2025"
    )


def test_a_success_says_what_it_brought() -> None:
    assert success_text("a/2025", "extract_and_load", 12, 34567, 1.5, LINK) == (
        f":white_check_mark: *a/2025*: extract_and_load done in 1.5 min, 12 tables changed, 34,567 rows loaded\n{LINK}"
    )
    assert "nothing had changed" in success_text("a/2025", "extract_and_load", 0, 0, 0.1, LINK)


@pytest.mark.parametrize(("config", "channel"), [(BOT, "#edfi"), (WEBHOOK, "webhook")])
def test_a_message_arrives_by_token_and_by_webhook(slack: SlackStandIn, config: Slack, channel: str) -> None:
    Channel(config, api=slack.api).send("hello *you*")
    assert slack.messages == [(channel, "hello *you*")]


@pytest.mark.parametrize(
    ("config", "mood", "why"),
    [
        (BOT, "refuse", "Slack refuses it (channel_not_found)"),
        (BOT, "broken", "Slack "),
        (WEBHOOK, "refuse", "the webhook answers HTTP 403"),
        (WEBHOOK, "broken", "the webhook answers HTTP 500"),
    ],
)
def test_a_message_that_slack_does_not_take_is_not_sent(
    slack: SlackStandIn, config: Slack, mood: str, why: str
) -> None:
    slack.mood = mood
    with pytest.raises(NotSent) as error:
        Channel(config, api=slack.api).send("hello")
    assert str(error.value).startswith(why)
    assert "secret-part" not in str(error.value)
    assert SlackStandIn.TOKEN not in str(error.value)


@pytest.mark.parametrize("config", [BOT, WEBHOOK])
def test_a_slack_that_is_gone_is_said_without_its_address(slack: SlackStandIn, config: Slack) -> None:
    slack.stop()
    with pytest.raises(NotSent, match=r"^Slack cannot be reached \(\w+\)$"):
        Channel(config, api=slack.api).send("hello")


def test_a_missing_token_names_the_variable(slack: SlackStandIn, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("SLACK_TOKEN")
    with pytest.raises(NotSent, match="SLACK_TOKEN is not set"):
        Channel(BOT, api=slack.api).send("hello")
