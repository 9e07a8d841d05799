//! The members that many operations have.

use crate::server::protocol::shape::Member;
use crate::server::protocol::shapes;

pub(super) const KEY_ID: Member = Member::needed("KeyId", &shapes::KEY_ID);
pub(super) const CONTEXT: Member = Member::optional("EncryptionContext", &shapes::CONTEXT);
pub(super) const DRY_RUN: Member = Member::optional("DryRun", &shapes::FLAG);
pub(super) const GRANT_TOKENS: Member = Member::optional("GrantTokens", &shapes::GRANT_TOKENS);
pub(super) const LIMIT: Member = Member::optional("Limit", &shapes::LIMIT);
pub(super) const MARKER: Member = Member::optional("Marker", &shapes::MARKER);
pub(super) const RECIPIENT: Member = Member::optional("Recipient", &shapes::RECIPIENT);
