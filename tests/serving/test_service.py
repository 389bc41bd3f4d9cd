"""The service in a process of its own, asked over HTTP: what it answers, refuses and leaves."""

import json
from pathlib import Path
from typing import Any

import pytest
from prometheus_client.parser import text_string_to_metric_families

from holdfast.programs import serve
from holdfast.tta.csvfile import read_rows
from tests.callbacks.test_report import Reader
from tests.serving.client import Server, form, pictures, serving

#: How a service is started here.
WORDS = ("method=tent", "serve.batch_size=8", "serve.labels=true", "serve.metadata=[scanner]")


def state(server: Server) -> tuple[int, int]:
    """What a request that is refused must not change."""
    told = server.ask("GET", "/status").json
    return told["images"], told["batches"]


def figures(server: Server) -> dict[str, float]:
    """Figures for Prometheus, by name and labels."""
    text = server.ask("GET", "/metrics").body.decode()
    return {
        " ".join([sample.name, *sample.labels.values()]): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }


@pytest.mark.slow
@pytest.mark.gate
def test_a_service_answers_refuses_and_goes_on(source: Path, tmp_path: Path) -> None:
    images, folder = pictures(source, 20), tmp_path / "served"
    words = (f"source={source}", f"output={folder}", *WORDS)
    with serving(*words) as server:
        answers = answered(server, images)
        refused(server, images[0])
        labelled(server, answers)
        looked_at(server, answers)
        server.kill()
    rows = list(read_rows(folder / "predictions.csv"))
    assert [row["id"] for row in rows] == [answer["id"] for answer in answers]
    assert [row["prediction"] for row in rows] == [answer["prediction"] for answer in answers]
    assert [row["weights"] for row in rows] == [answer["weights"] for answer in answers]
    assert rows[0]["scanner"] == "B2"

    with serving(*words) as server:
        assert state(server)[0] == len(answers)
        again = server.ask("POST", "/predict?id=again", images[0]).json["images"][0]
        assert again["batch"] == answers[-1]["batch"] + 1
        assert server.stop() == 0
    assert "stopped; a restart goes on in" in "".join(server.said)
    assert (folder / "adapted.ckpt").is_file()
    assert len(list(read_rows(folder / "predictions.csv"))) == len(answers) + 1


def answered(server: Server, images: list[bytes]) -> list[dict[str, Any]]:
    """Answers to one image by its bytes, and to forms of several."""
    told = json.dumps({"scanner": "B2", "group": "patient 1"}).replace(" ", "%20")
    one = server.ask("POST", f"/predict?id=first&metadata={told}", images[0])
    assert one.status == 200, one.body
    answers = one.json["images"]
    for start in (1, 9):
        names = [f"scan {number}" for number in range(start, start + 8)]
        several = server.predict(images[start : start + 8], ids=names)
        assert [answer["id"] for answer in several.json["images"]] == names
        answers += several.json["images"]
    unnamed = server.predict(images[17:19]).json["images"]
    assert len({answer["id"] for answer in unnamed}) == 2
    for answer in [*answers, *unnamed]:
        chances = answer["probabilities"]
        assert sum(chances.values()) == pytest.approx(1, abs=1e-5)
        assert answer["prediction"] == max(chances, key=chances.get)
        assert answer["confidence"] == max(chances.values())
        assert answer["mode"] in ("adapting", "hedging", "holding", "resting")
        assert answer["served_by"]
        assert len(answer["weights"]) == 16
        assert (answer["advice"] is None) == (answer["mode"] in ("adapting", "holding"))
    return [*answers, *unnamed]


def refused(server: Server, image: bytes) -> None:
    """What is refused, and changes nothing."""
    before = state(server)
    kind = {"Content-Type": "multipart/form-data; boundary=none"}
    as_json = {"Content-Type": "application/json"}
    body, mark = form([image])
    of_form = {"Content-Type": mark.replace("multipart/form-data", "Multipart/Form-Data")}
    for status, answer in (
        (422, server.ask("POST", "/predict", b"no image")),
        (422, server.ask("POST", "/predict", b"")),
        (422, server.predict([image, image[:99]], ids=["a", "b"])),
        (422, server.predict([image], ids=["a", "b"])),
        (422, server.predict([image, image], ids=["a", "a"])),
        (422, server.predict([image, image], ids=["a", "a "])),
        (422, server.predict([image], ids="a\x07")),
        (422, server.predict([image], metadata="{")),
        (422, server.predict([image], metadata='{"colour": "red"}')),
        (422, server.predict([image], metadata='{"scanner": ["B2"]}')),
        (422, server.predict([image], metadata="[{}, {}]")),
        (422, server.predict([image, image], metadata=["{}", "{}"])),
        (422, server.ask("POST", "/predict?id=a&id=b", image)),
        (422, server.ask("POST", "/predict?ids=a", image)),
        (422, server.ask("POST", "/predict?id=%20", image)),
        (422, server.predict([image], id="a")),
        (422, server.predict([image], metadata='{"scanner": "B2", "scanner": "B3"}')),
        (422, server.ask("POST", "/labels", label_of("a\nb"), as_json)),
        (422, server.ask("POST", "/labels", label_of(" "), as_json)),
        (422, server.ask("POST", "/predict?id=a", body, of_form)),
        (422, server.predict([])),
        (400, server.predict([image] * 65)),
        (400, server.ask("POST", "/predict", b"no form", kind)),
        (422, server.ask("POST", "/labels", b"{")),
        (422, server.ask("POST", "/labels", b'{"labels": "\xb2"}', kind)),
        (
            422,
            server.ask("POST", "/labels", b'{"\\ud800": 1}', as_json),
        ),
        (422, server.ask("POST", "/predict?id=" + "x" * 300, image)),
        (413, server.ask("POST", "/predict", image, {"Content-Length": "1" + "0" * 12})),
        (403, server.ask("POST", "/predict", image, {"Host": "hospital.example"})),
        (403, server.ask("POST", "/predict", image, {"Origin": "http://elsewhere.example"})),
        (404, server.ask("GET", "/secret")),
        (405, server.ask("GET", "/predict")),
    ):
        assert answer.status == status, (status, answer)
        assert isinstance(answer.json["detail"], str)
    assert state(server) == before


def label_of(name: str) -> bytes:
    """A label of an image."""
    return json.dumps({"labels": [{"id": name, "label": "round"}]}).encode()


def labelled(server: Server, answers: list[dict[str, Any]]) -> None:
    """Labels reach the guard with the next batch."""
    classes = list(answers[0]["probabilities"])
    given = [{"id": answer["id"], "label": classes[0]} for answer in answers]
    kind = {"Content-Type": "application/json"}
    taken = server.ask("POST", "/labels", json.dumps({"labels": given}).encode(), kind)
    assert (taken.status, taken.json) == (202, {"taken": len(given)})
    strange = json.dumps({"labels": [{"id": "first", "label": "aligator"}]}).encode()
    answer = server.ask("POST", "/labels", strange, kind)
    assert answer.status == 422
    assert "aligator" in answer.json["detail"]
    assert figures(server)["holdfast_labels_total"] == len(given)


def looked_at(server: Server, answers: list[dict[str, Any]]) -> None:
    """Supervision, figures, the status page and the description."""
    assert server.ask("GET", "/health").json == {"status": "alive"}
    assert server.ask("GET", "/ready").json == {"status": "ready"}
    seen = figures(server)
    assert seen["holdfast_batch_images_sum"] == len(answers)
    assert seen["holdfast_requests_total /predict 200"] == 4
    assert seen["holdfast_requests_total /predict 422"] > 9
    assert seen["holdfast_requests_total other 404"] == 1
    assert seen[f"holdfast_mode {answers[-1]['mode']}"] == 1
    assert seen["holdfast_latency_seconds_count /predict"] > 4
    page = server.ask("GET", "/")
    assert page.headers["refresh"] == "5"
    assert "default-src 'none'" in page.headers["content-security-policy"]
    read = Reader(page.body.decode())
    assert "script" not in read.elements
    assert "The last batches" in read.titles
    assert page.body.count(b"<svg") == 2
    described = server.ask("GET", "/openapi.json").json["paths"]
    assert set(described) == {"/predict", "/labels", "/health", "/ready", "/metrics", "/status"}


def test_an_address_for_others_needs_a_token(
    source: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.delenv("HOLDFAST_TOKEN", raising=False)
    assert serve.main([f"source={source}", "serve.host=0.0.0.0"]) == 2
    assert "HOLDFAST_TOKEN=$(openssl rand -hex 32)" in capsys.readouterr().err
    monkeypatch.setenv("HOLDFAST_TOKEN", "short")
    assert serve.main([f"source={source}", "serve.host=0.0.0.0"]) == 2
    assert "16 letters" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "told"),
    [
        ([], "source is missing"),
        (["source=absent"], "does not exist"),
        (["serve.window=4"], "must be at least serve.batch_size=16"),
        (["serve.port=70000"], "outside"),
        (["serve.queue=3"], "must hold"),
        (["serve.prt=1"], "did you mean port"),
        (["data.window=bone"], "must be"),
        (["predictions.parquet=true"], "no end"),
        (["device=cuda"], "no GPU"),
        (["serve.adapt=false", "start=absent.ckpt"], "does not exist"),
    ],
)
def test_what_cannot_be_served_is_told_in_a_sentence(
    words: list[str],
    told: str,
    source: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr("torch.cuda.is_available", lambda: False)
    named = words and words[0].startswith("source=")
    given = [] if not words or named else [f"source={source}", f"output={tmp_path / 'out'}"]
    assert serve.main([*given, *words]) == 2
    said = capsys.readouterr().err
    assert said.startswith("error: ")
    assert told in said
    assert len(said.splitlines()) == 1


def test_a_form_is_what_browsers_send() -> None:
    body, kind = form([b"x"], ids=["a", "b"])
    assert kind.startswith("multipart/form-data; boundary=")
    assert body.count(b"Content-Disposition") == 3
