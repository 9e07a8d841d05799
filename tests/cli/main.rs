//! The command line as a stranger meets it: the built program, an empty home, bad input.

mod bad_input;
mod live;
mod machine;
