"""Who is who: keys, certificates, the signed manifest, and what a client demands of all of them."""

from fedpeft.secagg.trust.certificate import Authority, Certificate, Enrolment, Revocations
from fedpeft.secagg.trust.identity import Identity
from fedpeft.secagg.trust.invitation import Invitation
from fedpeft.secagg.trust.manifest import Manifest, SignedManifest, Terms
from fedpeft.secagg.trust.policy import Policy

__all__ = [
    "Authority",
    "Certificate",
    "Enrolment",
    "Identity",
    "Invitation",
    "Manifest",
    "Policy",
    "Revocations",
    "SignedManifest",
    "Terms",
]
