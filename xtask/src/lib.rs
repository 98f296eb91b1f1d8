//! Chores of the repository that cargo has no command for.
//!
//! Owns: the checks of the house rules, callable from the command line and from tests.
//! Refuses to know: the product; nothing here is linked into it.

pub mod tidy;
