"""The AWS CLI, as people type it."""

import base64
import json
import os
import subprocess
import sys
import tempfile
import unittest
from pathlib import Path

from common import CALLS, CREDENTIALS, ENDPOINT, REGIONS

AWS = Path(sys.executable).with_name("aws")


def aws(*words, fails=None):
    """What `aws kms WORDS` prints; or, if it must fail, its message."""
    access_key, secret = CREDENTIALS["root"]
    environment = {**os.environ, "AWS_ACCESS_KEY_ID": access_key, "AWS_SECRET_ACCESS_KEY": secret,
                   "AWS_DEFAULT_REGION": REGIONS[0], "AWS_MAX_ATTEMPTS": "1",
                   "AWS_CONFIG_FILE": "/dev/null", "AWS_PAGER": ""}
    command = [sys.executable, str(AWS), "kms", *words, "--endpoint-url", ENDPOINT, "--output", "json"]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    if fails:
        assert done.returncode != 0 and fails in done.stderr, done
        CALLS["refused as expected"] += 1
        return done.stderr
    assert done.returncode == 0, done.stderr
    CALLS["passed"] += 1
    return json.loads(done.stdout) if done.stdout.strip() else {}


class Cli(unittest.TestCase):
    def test_a_key_is_made_named_used_rotated_and_scheduled_for_deletion(self):
        made = aws("create-key", "--description", "cli", "--tags", "TagKey=a,TagValue=b")
        key = made["KeyMetadata"]["KeyId"]
        aws("create-alias", "--alias-name", "alias/cli", "--target-key-id", key)
        self.assertEqual(aws("describe-key", "--key-id", "alias/cli")["KeyMetadata"]["KeyId"], key)
        with tempfile.TemporaryDirectory() as place:
            plain, sealed = Path(place, "plain"), Path(place, "sealed")
            plain.write_bytes(b"\0secret")
            blob = aws("encrypt", "--key-id", "alias/cli", "--plaintext", f"fileb://{plain}",
                       "--encryption-context", "a=b,c=d")["CiphertextBlob"]
            sealed.write_bytes(base64.b64decode(blob))
            opened = aws("decrypt", "--ciphertext-blob", f"fileb://{sealed}",
                         "--encryption-context", "c=d,a=b")
            self.assertEqual(base64.b64decode(opened["Plaintext"]), b"\0secret")
            aws("decrypt", "--ciphertext-blob", f"fileb://{sealed}", fails="InvalidCiphertext")
        self.assertEqual(
            len(base64.b64decode(aws("generate-data-key", "--key-id", key, "--key-spec",
                                     "AES_256")["Plaintext"])), 32)
        aws("enable-key-rotation", "--key-id", key, "--rotation-period-in-days", "180")
        self.assertEqual(aws("get-key-rotation-status", "--key-id", key)["RotationPeriodInDays"], 180)
        aws("rotate-key-on-demand", "--key-id", key)
        self.assertEqual(len(aws("list-key-rotations", "--key-id", key)["Rotations"]), 1)
        self.assertIn("default", aws("list-key-policies", "--key-id", key)["PolicyNames"])
        aws("get-key-policy", "--key-id", key, "--policy-name", "default")
        aws("disable-key", "--key-id", key)
        aws("encrypt", "--key-id", key, "--plaintext", "eA==", fails="DisabledException")
        aws("enable-key", "--key-id", key)
        window = aws("schedule-key-deletion", "--key-id", key, "--pending-window-in-days", "7")
        self.assertEqual(window["PendingWindowInDays"], 7)
        self.assertEqual(aws("cancel-key-deletion", "--key-id", key)["KeyId"].split("/")[1], key)

    def test_lists_are_paged(self):
        aws("create-key")
        aws("create-key")
        listed = aws("list-keys", "--page-size", "1")["Keys"]
        self.assertGreaterEqual(len(listed), 2)
        aws("list-aliases")
        aws("describe-custom-key-stores")
        aws("describe-key", "--key-id", "nobody", fails="NotFoundException")


if __name__ == "__main__":
    unittest.main()
