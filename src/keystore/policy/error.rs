//! Why a policy document is not accepted.

use std::fmt;

use super::MAX_POLICY;

/// A policy that is refused: what is wrong, and where it stands.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct PolicyError {
    /// The statement, counted from 1, and its Sid.
    pub(super) statement: Option<(usize, Option<String>)>,
    /// The element, with the elements around it: `Condition.StringEquals.kms:ViaService`.
    pub(super) element: String,
    pub(super) problem: Problem,
}

/// What is wrong.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Problem {
    /// More than [`MAX_POLICY`] bytes.
    Long(usize),
    /// Not JSON, or an object with the same key twice; in the words of the parser.
    Syntax(String),
    /// A letter that AWS does not accept in policies.
    Letter(char),
    /// Something else than what belongs here.
    Expected { expected: &'static str, found: &'static str },
    /// A text that is none of those that belong here.
    Unknown { what: &'static str, found: String, hint: &'static str },
    /// Something is missing.
    Missing(&'static str),
    /// Of two elements that exclude each other both are there.
    Both(&'static str, &'static str),
    /// An element that belongs to the other kind of policy.
    Misplaced(&'static str),
    /// Two statements have the same Sid.
    SameSid(String),
}

/// An error inside a statement, before it is known in which.
#[derive(Debug)]
pub(super) struct Fault {
    pub(super) element: String,
    pub(super) problem: Problem,
}

impl Problem {
    /// The problem with the element that it is in.
    pub(super) fn at(self, element: impl Into<String>) -> Fault {
        Fault { element: element.into(), problem: self }
    }
}

impl Fault {
    /// The same fault, seen from the element around it.
    pub(super) fn inside(mut self, outer: &str) -> Self {
        let dot = if self.element.is_empty() { "" } else { "." };
        self.element = format!("{outer}{dot}{}", self.element);
        self
    }

    pub(super) fn in_statement(self, number: usize, sid: Option<String>) -> PolicyError {
        let Self { element, problem } = self;
        PolicyError { statement: Some((number, sid)), element, problem }
    }
}

impl PolicyError {
    /// True if the document is too long; everything else is malformed.
    pub fn is_too_long(&self) -> bool {
        matches!(self.problem, Problem::Long(_))
    }
}

impl From<Fault> for PolicyError {
    fn from(fault: Fault) -> Self {
        Self { statement: None, element: fault.element, problem: fault.problem }
    }
}

impl fmt::Display for PolicyError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match &self.statement {
            Some((number, Some(sid))) => write!(f, "policy statement {number} ('{sid}')")?,
            Some((number, None)) => write!(f, "policy statement {number}")?,
            None => f.write_str("policy")?,
        }
        if !self.element.is_empty() {
            write!(f, ", {}", self.element)?;
        }
        write!(f, ": {}", self.problem)
    }
}

impl std::error::Error for PolicyError {}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Long(len) => write!(f, "it has {len} bytes, at most {MAX_POLICY} are allowed"),
            Self::Syntax(words) => f.write_str(words),
            Self::Letter(letter) => {
                write!(f, "the character U+{:04X} is not allowed", u32::from(*letter))
            }
            Self::Expected { expected, found } => write!(f, "{expected} is expected, not {found}"),
            Self::Unknown { what, found, hint } => {
                write!(f, "'{found}' is not {what}")?;
                if hint.is_empty() { Ok(()) } else { write!(f, ": {hint}") }
            }
            Self::Missing(what) => write!(f, "{what} is missing"),
            Self::Both(one, other) => write!(f, "{one} and {other} exclude each other"),
            Self::Misplaced(why) => f.write_str(why),
            Self::SameSid(sid) => write!(f, "the Sid '{sid}' is used twice"),
        }
    }
}
