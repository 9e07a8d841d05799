//! What walks over the whole tree, or runs beside the requests: check, re-wrap, recovery, upkeep,
//! policies of subtrees. Uses the verbs of `ops`.

pub(in crate::volume) mod adopt;
mod attended;
pub(in crate::volume) mod check;
pub(in crate::volume) mod descent;
pub(in crate::volume) mod dir_policy;
pub(in crate::volume) mod flush;
pub(in crate::volume) mod placing;
pub(in crate::volume) mod recovery;
pub(in crate::volume) mod references;
pub(in crate::volume) mod revoke;
pub(in crate::volume) mod rewrap;
pub(in crate::volume) mod upkeep;
pub(in crate::volume) mod walk;
