//! Data keys.

use super::Operation;

pub(super) const OPERATIONS: &[Operation] = &[];
