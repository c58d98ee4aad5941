//! An explanation as text for people.

use std::fmt;

use super::{BudgetExplanation, EntryExplanation, Explanation, Nearest, RuleExplanation, UnmetCondition};
use crate::record::Reason;
use crate::yaml::counted;

impl fmt::Display for Explanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "{}: {} to listener `{}`",
            self.verdict, self.peer, self.listener
        )?;
        if let Some(source) = &self.source {
            write!(f, " from {source}")?;
        }
        self.write_reason(f)?;
        if let Some(nearest) = &self.nearest {
            write!(f, "\nnearest: {nearest}")?;
        }
        if let Some(trust) = &self.trust {
            write!(f, "\n\ntrust domains accepted: {}", trust.join(", "))?;
        }
        if !self.budgets.is_empty() {
            write!(f, "\n\n{}", counted(self.budgets.len(), "budget"))?;
            self.budgets
                .iter()
                .try_for_each(|budget| write!(f, "\n{budget}"))?;
        }
        if !self.deny_list.is_empty() {
            let entries = match self.deny_list.len() {
                1 => "1 entry".to_owned(),
                many => format!("{many} entries"),
            };
            write!(f, "\n\n{entries} in the deny list")?;
            for entry in &self.deny_list {
                let mark = match (entry.hits, self.rule.as_ref() == Some(&entry.name)) {
                    (true, true) => "=>",
                    (true, false) => " +",
                    (false, _) => " -",
                };
                write!(f, "\n{mark} {entry}")?;
            }
        }
        write!(f, "\n\n{}", counted(self.rules.len(), "rule"))?;
        self.rules.iter().try_for_each(|rule| write!(f, "\n{rule}"))
    }
}

impl Explanation {
    fn write_reason(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match (&self.rule, self.reason, &self.detail) {
            (Some(_), Some(Reason::DenyList), Some(detail)) => write!(f, "\n{detail}")?,
            (Some(rule), ..) => write!(f, "\ndecided by rule `{rule}`")?,
            (None, Some(Reason::NoAllowRule), _) | (None, _, None) => {
                write!(f, "\nno allow rule matches: what is not allowed is denied")?;
            }
            (None, _, Some(detail)) => write!(f, "\n{detail}")?,
        }
        if let (Some(file), Some(line)) = (&self.file, self.line) {
            write!(f, " ({file}:{line})")?;
        }
        if let Some(expires) = &self.expires {
            write!(f, ", until {expires}")?;
        }
        match &self.description {
            Some(description) => write!(f, "\n{description}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for Nearest {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "rule `{}` ({}:{})", self.rule, self.file, self.line)?;
        for (index, UnmetCondition { condition, detail }) in self.unmet.iter().enumerate() {
            let before = if index == 0 { " but for " } else { "; " };
            write!(f, "{before}{condition}: {detail}")?;
        }
        Ok(())
    }
}

impl fmt::Display for RuleExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mark = match (self.decided, self.matches) {
            (true, _) => "=>",
            (false, true) => " +",
            (false, false) => " -",
        };
        write!(
            f,
            "{mark} {} ({}, {}:{})",
            self.name, self.action, self.file, self.line
        )?;
        if let Some(description) = &self.description {
            write!(f, "\n     description: {description}")?;
        }
        for UnmetCondition { condition, detail } in &self.unmet {
            write!(f, "\n     {condition}: {detail}")?;
        }
        match &self.detail {
            Some(detail) => write!(f, "\n     {detail}"),
            None => Ok(()),
        }
    }
}

impl fmt::Display for EntryExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{} ({}, {}:{})", self.name, self.by, self.file, self.line)
    }
}

impl fmt::Display for BudgetExplanation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, " * {} ({}:{})", self.name, self.file, self.line)?;
        let bounds = [
            self.connections.map(|n| format!("{n} at once")),
            self.connections_per_second.map(|n| {
                let burst = self.burst.unwrap_or(n);
                format!("{n} new a second, {burst} at once")
            }),
            self.bytes_per_second.map(|n| format!("{n} bytes a second")),
        ];
        for (index, bound) in bounds.into_iter().flatten().enumerate() {
            write!(f, "{}{bound}", if index == 0 { ": " } else { "; " })?;
        }
        Ok(())
    }
}
