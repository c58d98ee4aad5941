//! Who may connect to what: policy files, and the one function that decides.
//!
//! Three parts: [`mod@file`] is the rules as written, `compile` turns them into a [`Policy`] or refuses the whole set,
//! and [`Policy::evaluate`] decides about plain [`Facts`]. Explaining runs the same conditions. Promises: what is not
//! allowed is denied; a matching `deny` wins; a rule that cannot be enforced as written is an error, never skipped.
//! All but [`mod@load`] is pure: the time comes as an argument. Watching the files, counting generations and keeping the
//! last good policy are left to whoever holds it.

mod compile;
mod evaluate;
mod explain;
pub mod file;
mod load;
mod rule;
#[cfg(test)]
mod tests;

pub use compile::compile;
pub use evaluate::{Decision, Facts, Policy};
pub use explain::{Explanation, RuleExplanation};
pub use file::parse_text;
pub use load::{examine, load};
pub use rule::{Action, Rule, Unmet};
