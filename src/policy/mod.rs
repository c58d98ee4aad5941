//! Who may connect to what: policy files, and the one function that decides.
//!
//! Three parts: [`mod@file`] is the rules as written, [`compile()`] turns them into a [`Policy`] or refuses the whole
//! set, and [`Admission::evaluate`], which joins a policy and a [`DenyList`], decides about plain [`Facts`]. Explaining
//! runs the same conditions. Promises: what is not allowed is denied; a matching `deny` wins, and the deny list over all;
//! a rule that cannot be enforced as written is an error, never skipped.
//! All but [`mod@load`] is pure: the time comes as an argument. Watching the files, counting generations and keeping the
//! last good policy are left to whoever holds it.

mod admission;
mod budget;
mod compile;
mod delta;
pub mod deny_list;
mod evaluate;
mod explain;
mod facts;
pub mod file;
mod ids;
mod index;
mod lint;
mod load;
mod nearest;
mod networks;
pub mod question;
mod rule;
mod sets;
#[cfg(test)]
mod tests;

pub use admission::{Admission, Decider, Outcome};
pub use budget::{Budget, Rate};
pub use compile::{Surroundings, compile};
pub use delta::Delta;
pub use deny_list::DenyList;
pub use evaluate::Policy;
pub use explain::{
    BudgetExplanation, EntryExplanation, Explanation, Nearest, RuleExplanation, UnmetCondition,
};
pub use facts::{CertificateFacts, Facts};
pub use file::parse_text;
pub use load::{load, load_deny_list};
pub use rule::{Action, Rule};
