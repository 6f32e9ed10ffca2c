"""Where the server is, and the closing line that conformance/run reads."""

import os
import uuid

import pytest

PORT = int(os.environ["LONGHAUL_PORT"])
URL = f"http://127.0.0.1:{PORT}"


@pytest.fixture
def project():
    """A project of the test's own, so that its lists hold nothing of another's."""
    return f"py-{uuid.uuid4().hex[:12]}"


def pytest_unconfigure(config):
    reporter = config.pluginmanager.get_plugin("terminalreporter")
    counts = {outcome: len(reports) for outcome, reports in reporter.stats.items()}
    failed = counts.get("failed", 0) + counts.get("error", 0)
    print(f"{counts.get('passed', 0)} passed, {failed} failed, {counts.get('skipped', 0)} skipped")
