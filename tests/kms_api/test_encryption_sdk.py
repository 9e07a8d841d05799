"""The AWS Encryption SDK: round trips with every keyring that works without DynamoDB."""

import unittest

import aws_encryption_sdk
from aws_cryptographic_material_providers.mpl import AwsCryptographicMaterialProviders
from aws_cryptographic_material_providers.mpl.config import MaterialProvidersConfig
from aws_cryptographic_material_providers.mpl.models import (
    CreateAwsKmsDiscoveryKeyringInput, CreateAwsKmsEcdhKeyringInput, CreateAwsKmsKeyringInput,
    CreateAwsKmsMrkDiscoveryKeyringInput, CreateAwsKmsMrkKeyringInput, CreateAwsKmsRsaKeyringInput,
    CreateMultiKeyringInput, DiscoveryFilter,
    KmsEcdhStaticConfigurationsKmsPrivateKeyToStaticPublicKey,
    KmsEcdhStaticConfigurationsKmsPublicKeyDiscovery, KmsPrivateKeyToStaticPublicKeyInput,
    KmsPublicKeyDiscoveryInput)
from aws_cryptography_primitives.smithygenerated.aws_cryptography_primitives.models import (
    ECDHCurveSpec)
from aws_encryption_sdk import CommitmentPolicy
from aws_encryption_sdk.exceptions import AWSEncryptionSDKClientError
from aws_encryption_sdk.identifiers import AlgorithmSuite
from cryptography.hazmat.primitives import serialization

from common import ACCOUNT, KmsTest, REGIONS, client

CONTEXT = {"purpose": "test", "ab": "c"}
PLAINTEXT = b"plaintext " * 1000


class EncryptionSdk(KmsTest):
    @classmethod
    def setUpClass(cls):
        super().setUpClass()
        cls.sdk = aws_encryption_sdk.EncryptionSDKClient(
            commitment_policy=CommitmentPolicy.REQUIRE_ENCRYPT_REQUIRE_DECRYPT)
        cls.providers = AwsCryptographicMaterialProviders(config=MaterialProvidersConfig())

    def made(self, **request):
        return self.kms.create_key(**request)["KeyMetadata"]["Arn"]

    def round_trip(self, encrypting, decrypting=None):
        ciphertext, _ = self.sdk.encrypt(source=PLAINTEXT, keyring=encrypting,
                                         encryption_context=CONTEXT)
        opened, header = self.sdk.decrypt(source=ciphertext, keyring=decrypting or encrypting,
                                          encryption_context=CONTEXT)
        self.assertEqual(opened, PLAINTEXT)
        self.assertLessEqual(CONTEXT.items(), header.encryption_context.items())
        return ciphertext

    def keyring(self, key, kms=None):
        return self.providers.create_aws_kms_keyring(
            CreateAwsKmsKeyringInput(kms_key_id=key, kms_client=kms or self.kms))

    def test_kms_keyring(self):
        self.round_trip(self.keyring(self.made()))

    def test_another_key_does_not_open_it(self):
        ciphertext = self.round_trip(self.keyring(self.made()))
        with self.assertRaises(AWSEncryptionSDKClientError):
            self.sdk.decrypt(source=ciphertext, keyring=self.keyring(self.made()))

    def test_multi_keyring(self):
        first, second = self.made(), self.made()
        multi = self.providers.create_multi_keyring(CreateMultiKeyringInput(
            generator=self.keyring(first), child_keyrings=[self.keyring(second)]))
        self.round_trip(multi)
        self.round_trip(multi, self.keyring(first))
        self.round_trip(multi, self.keyring(second))

    def test_discovery_keyring(self):
        discovery = self.providers.create_aws_kms_discovery_keyring(CreateAwsKmsDiscoveryKeyringInput(
            kms_client=self.kms,
            discovery_filter=DiscoveryFilter(account_ids=[ACCOUNT], partition="aws")))
        self.round_trip(self.keyring(self.made()), discovery)

    def test_multi_region_keyrings(self):
        key = self.made(MultiRegion=True)
        here, there = REGIONS
        other = client(region=there)
        replica = self.kms.replicate_key(KeyId=key, ReplicaRegion=there)["ReplicaKeyMetadata"]["Arn"]
        mrk = lambda arn, kms: self.providers.create_aws_kms_mrk_keyring(
            CreateAwsKmsMrkKeyringInput(kms_key_id=arn, kms_client=kms))
        self.round_trip(mrk(key, self.kms), mrk(replica, other))
        self.round_trip(mrk(replica, other), mrk(key, self.kms))
        discovery = self.providers.create_aws_kms_mrk_discovery_keyring(
            CreateAwsKmsMrkDiscoveryKeyringInput(
                kms_client=other, region=there,
                discovery_filter=DiscoveryFilter(account_ids=[ACCOUNT], partition="aws")))
        self.round_trip(mrk(key, self.kms), discovery)

    def test_rsa_keyring(self):
        for algorithm in ("RSAES_OAEP_SHA_1", "RSAES_OAEP_SHA_256"):
            key = self.made(KeySpec="RSA_2048", KeyUsage="ENCRYPT_DECRYPT")
            der = self.kms.get_public_key(KeyId=key)["PublicKey"]
            pem = serialization.load_der_public_key(der).public_bytes(
                serialization.Encoding.PEM, serialization.PublicFormat.SubjectPublicKeyInfo)
            keyring = self.providers.create_aws_kms_rsa_keyring(CreateAwsKmsRsaKeyringInput(
                public_key=pem, kms_key_id=key, encryption_algorithm=algorithm, kms_client=self.kms))
            # The SDK refuses signed suites with this keyring.
            ciphertext, _ = self.sdk.encrypt(
                source=PLAINTEXT, keyring=keyring, encryption_context=CONTEXT,
                algorithm=AlgorithmSuite.AES_256_GCM_HKDF_SHA512_COMMIT_KEY)
            opened, _ = self.sdk.decrypt(source=ciphertext, keyring=keyring)
            self.assertEqual(opened, PLAINTEXT)

    def test_ecdh_keyring(self):
        mine, theirs = (self.made(KeySpec="ECC_NIST_P256", KeyUsage="KEY_AGREEMENT")
                        for _ in range(2))
        public = lambda key: self.kms.get_public_key(KeyId=key)["PublicKey"]
        static = lambda sender, recipient, sender_key: self.providers.create_aws_kms_ecdh_keyring(
            CreateAwsKmsEcdhKeyringInput(
                kms_client=self.kms, curve_spec=ECDHCurveSpec.ECC_NIST_P256,
                key_agreement_scheme=KmsEcdhStaticConfigurationsKmsPrivateKeyToStaticPublicKey(
                    KmsPrivateKeyToStaticPublicKeyInput(
                        sender_kms_identifier=sender_key, sender_public_key=sender,
                        recipient_public_key=recipient))))
        sending = static(public(mine), public(theirs), mine)
        discovery = self.providers.create_aws_kms_ecdh_keyring(CreateAwsKmsEcdhKeyringInput(
            kms_client=self.kms, curve_spec=ECDHCurveSpec.ECC_NIST_P256,
            key_agreement_scheme=KmsEcdhStaticConfigurationsKmsPublicKeyDiscovery(
                KmsPublicKeyDiscoveryInput(recipient_kms_identifier=theirs))))
        self.round_trip(sending)
        self.round_trip(sending, discovery)


if __name__ == "__main__":
    unittest.main()
