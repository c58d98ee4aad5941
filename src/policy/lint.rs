//! What is allowed to be written and probably not meant.

use super::compile::{Placed, Surroundings};
use crate::yaml::Findings;

pub(super) fn warn(_rules: &[Placed], _surroundings: Surroundings<'_>, _findings: &mut [Findings]) {}
