//! The messages as bytes, who may renew with whom, and the two ends of one connection against each other and against what
//! no good peer would say.

mod links;
mod messages;
mod negotiation;
