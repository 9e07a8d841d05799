"""What the suites share: clients of the endpoint, keys, and words for what must fail.

The endpoint and the credentials come from the environment (see clients.rs).
"""

import json
import os
import unittest

import boto3
from botocore.config import Config
from botocore.exceptions import ClientError

ENDPOINT = os.environ["KMS_ENDPOINT"]
CREDENTIALS = json.loads(os.environ["KMS_CREDENTIALS"])
REGIONS = json.loads(os.environ.get("KMS_REGIONS", '["us-east-1", "eu-west-1"]'))
ACCOUNT = "000000000000"
ANY = object()
ABSENT_KEY = "12345678-1234-4234-8234-123456789012"

CALLS = {"passed": 0, "refused as expected": 0}


def client(user="root", region=REGIONS[0], config=None):
    """A boto3 client that signs as `user` and counts its calls."""
    access_key, secret = CREDENTIALS[user]
    made = boto3.client(
        "kms",
        endpoint_url=ENDPOINT,
        region_name=region,
        aws_access_key_id=access_key,
        aws_secret_access_key=secret,
        config=config or Config(retries={"max_attempts": 1, "mode": "standard"}, read_timeout=60),
    )
    made.meta.events.register("after-call.kms.*", _count)
    return made


def _count(http_response, **_):
    CALLS["passed" if http_response.status_code == 200 else "refused as expected"] += 1


def arn(key_id, region=REGIONS[0]):
    return f"arn:aws:kms:{region}:{ACCOUNT}:key/{key_id}"


class KmsTest(unittest.TestCase):
    """A test with a client, and with words for refusals."""

    maxDiff = None

    @classmethod
    def setUpClass(cls):
        cls.kms = client()

    def key(self, **request):
        """The id of a new key."""
        return self.kms.create_key(**request)["KeyMetadata"]["KeyId"]

    def fails(self, error, call, message=ANY, status=None, **request):
        """The call is refused with this exception, message and HTTP status."""
        with self.assertRaises(ClientError) as caught:
            call(**request)
        found = caught.exception.response
        self.assertEqual(found["Error"]["Code"], error, found)
        if message is not ANY:
            self.assertEqual(found["Error"]["Message"], message)
        if status is None:
            status = {"KMSInternalException": 500, "KeyUnavailableException": 500}.get(error, 400)
        self.assertEqual(found["ResponseMetadata"]["HTTPStatusCode"], status)
        return found

    def denied(self, action, call, **request):
        """The call is refused by policy, and the message names the missing permission."""
        found = self.fails("AccessDeniedException", call, **request)
        self.assertIn(action, found["Error"]["Message"])
