//! Named sets, shared by all files of a policy: found, put into each other, and put into the lists that use them.

use std::collections::HashMap;
use std::sync::Arc;

use ipnet::IpNet;

use super::file::{Item, Written, WrittenSet};
use super::ids::{IdSet, Ids};
use super::networks::{NetworkSet, Networks};
use crate::spiffe::IdPattern;
use crate::yaml::{Findings, Place, closest, counted, one_of};

/// Values of one set with the sets in it.
const MAX_VALUES: usize = 10_000;
/// How deep sets may stand in each other.
const MAX_DEPTH: usize = 16;
/// Values over all lists of a policy with their sets put in, each counted for each listener that its rule names: what
/// bounds the index, in memory and in the time to make it.
const MAX_EXPANDED: usize = 500_000;

/// A kind of value that sets are made of.
pub(super) trait Kind: Clone {
    /// The field that names such sets.
    const FIELD: &'static str;
    /// The other one.
    const OTHER: &'static str;
    /// Values that rules share.
    type Shared;
    /// A list of a rule.
    type List;

    fn share(values: Vec<Self>) -> Self::Shared;
    fn values(shared: &Self::Shared) -> &[Self];
    fn list(parts: Vec<Arc<Self::Shared>>, written: Vec<Arc<str>>) -> Self::List;
}

impl Kind for IdPattern {
    const FIELD: &'static str = "ids";
    const OTHER: &'static str = "networks";
    type Shared = Ids;
    type List = IdSet;

    fn share(values: Vec<Self>) -> Ids {
        Ids::new(values)
    }

    fn values(shared: &Ids) -> &[Self] {
        shared.patterns()
    }

    fn list(parts: Vec<Arc<Ids>>, written: Vec<Arc<str>>) -> IdSet {
        IdSet::new(parts, written)
    }
}

impl Kind for IpNet {
    const FIELD: &'static str = "networks";
    const OTHER: &'static str = "ids";
    type Shared = Networks;
    type List = NetworkSet;

    fn share(values: Vec<Self>) -> Networks {
        Networks::new(values)
    }

    fn values(shared: &Networks) -> &[Self] {
        shared.networks()
    }

    fn list(parts: Vec<Arc<Networks>>, written: Vec<Arc<str>>) -> NetworkSet {
        NetworkSet::new(parts, written)
    }
}

/// The sets of one kind.
pub(super) struct Sets<T: Kind> {
    named: HashMap<Arc<str>, Named<T>>,
    /// The names of the sets of the other kind.
    others: Vec<Arc<str>>,
    /// Values that were put into a set because another one holds them: sets of sets grow by products.
    put_in: usize,
}

impl<T: Kind> Default for Sets<T> {
    fn default() -> Self {
        Self {
            named: HashMap::new(),
            others: Vec::new(),
            put_in: 0,
        }
    }
}

struct Named<T: Kind> {
    /// Which file it stands in.
    file: usize,
    place: Place,
    items: Vec<Item<T>>,
    /// With all that is in it, once that is known.
    shared: Option<Arc<T::Shared>>,
    used: bool,
}

/// What lists hold together so far.
#[derive(Default)]
pub(super) struct Expanded(usize);

impl Expanded {
    /// Counts the values of a list; a finding is made when they become too many.
    fn add(&mut self, count: usize, place: Place, findings: &mut Findings) {
        let before = self.0;
        self.0 = self.0.saturating_add(count);
        if before <= MAX_EXPANDED && self.0 > MAX_EXPANDED {
            let message =
                format!("from here on the lists of the policy hold more than {MAX_EXPANDED} values together");
            let help = "sets are counted where they are used, once for each listener; a wildcard says more with less";
            findings.error_with_help(place, message, help);
        }
    }
}

impl<T: Kind> Sets<T> {
    /// The sets of all files.
    pub(super) fn collect(
        written: Vec<(usize, Vec<WrittenSet<T>>)>,
        others: Vec<Arc<str>>,
        findings: &mut [Findings],
    ) -> Self {
        let mut named: HashMap<Arc<str>, Named<T>> = HashMap::new();
        for (file, sets) in written {
            for WrittenSet {
                name: (name, place),
                items,
            } in sets
            {
                if let Some(first) = named.get(&name) {
                    let at = findings
                        .get(first.file)
                        .map_or_else(String::new, |f| f.file().to_string());
                    let message = format!(
                        "the set `{name}` of `{}` is here twice, first in {at}:{}",
                        T::FIELD,
                        first.place.line
                    );
                    if let Some(findings) = findings.get_mut(file) {
                        findings.error_with_help(place, message, "sets are shared by all files of a policy");
                    }
                    continue;
                }
                let shared = None;
                let used = false;
                named.insert(
                    name,
                    Named {
                        file,
                        place,
                        items,
                        shared,
                        used,
                    },
                );
            }
        }
        Self {
            named,
            others,
            put_in: 0,
        }
    }

    /// Puts the sets into each other.
    pub(super) fn resolve(&mut self, findings: &mut [Findings]) {
        let mut names: Vec<Arc<str>> = self.named.keys().cloned().collect();
        // So that what is told of a circle does not hang on the order of a hash map.
        names.sort();
        for name in names {
            self.resolve_one(&name, &mut Vec::new(), findings);
        }
    }

    /// `above` are the sets that this one stands in.
    fn resolve_one(&mut self, name: &Arc<str>, above: &mut Vec<Arc<str>>, findings: &mut [Findings]) {
        let Some(set) = self.named.get_mut(name).filter(|set| set.shared.is_none()) else {
            return;
        };
        let (file, place, items) = (set.file, set.place, std::mem::take(&mut set.items));
        above.push(Arc::clone(name));
        let mut values: Vec<T> = Vec::new();
        for item in items {
            match item.is {
                Written::Value(value) => values.push(value),
                Written::Set(inner) => {
                    let problem = self.put_in(&inner, above, findings);
                    match problem {
                        Some((message, help)) => {
                            if let Some(findings) = findings.get_mut(file) {
                                findings.error_with_help(item.place, message, help);
                            }
                        }
                        None => {
                            let inner = self.named.get(&inner).and_then(|set| set.shared.as_ref());
                            let inner = inner.map(|shared| T::values(shared)).unwrap_or_default();
                            let before = self.put_in;
                            self.put_in = before.saturating_add(inner.len());
                            if self.put_in <= MAX_EXPANDED {
                                values.extend(inner.iter().cloned());
                            } else if before <= MAX_EXPANDED
                                && let Some(findings) = findings.get_mut(file)
                            {
                                let message = format!(
                                    "from here on the sets that stand in other sets hold more than {MAX_EXPANDED} values together"
                                );
                                findings.error(item.place, message);
                            }
                        }
                    }
                }
            }
            if values.len() > MAX_VALUES {
                let message =
                    format!("the set `{name}` holds more than {MAX_VALUES} values with the sets in it");
                if let Some(findings) = findings.get_mut(file) {
                    findings.error(place, message);
                }
                values.truncate(MAX_VALUES);
                break;
            }
        }
        above.pop();
        if let Some(set) = self.named.get_mut(name) {
            set.shared = Some(Arc::new(T::share(values)));
        }
    }

    /// Makes sure that a set which stands in others is resolved itself, or says why it cannot be.
    fn put_in(
        &mut self,
        inner: &Arc<str>,
        above: &mut Vec<Arc<str>>,
        findings: &mut [Findings],
    ) -> Option<(String, String)> {
        if let Some(at) = above.iter().position(|name| name == inner) {
            let circle: Vec<String> = above
                .iter()
                .skip(at)
                .chain([inner])
                .map(|name| format!("`{name}`"))
                .collect();
            let message = format!("the set `{inner}` is made of itself: {}", circle.join(" holds "));
            return Some((
                message,
                "a set holds values and other sets, and never itself".to_owned(),
            ));
        }
        if above.len() >= MAX_DEPTH {
            let message = format!("sets stand in each other more than {MAX_DEPTH} deep");
            return Some((message, "write the values of the inner ones out".to_owned()));
        }
        match self.named.get_mut(inner) {
            None => return Some(self.unknown(inner)),
            Some(set) => set.used = true,
        }
        self.resolve_one(inner, above, findings);
        None
    }

    /// A list with its sets put in. `times` is how many listeners it is said of.
    pub(super) fn list(
        &mut self,
        items: Vec<Item<T>>,
        times: usize,
        expanded: &mut Expanded,
        findings: &mut Findings,
    ) -> T::List {
        let place = items.first().map(|item| item.place).unwrap_or_default();
        let mut written = Vec::with_capacity(items.len());
        let mut own = Vec::new();
        let mut parts = Vec::new();
        let mut count = 0_usize;
        for item in items {
            match item.is {
                Written::Value(value) => own.push(value),
                Written::Set(name) => match self.named.get_mut(&name) {
                    Some(set) => {
                        set.used = true;
                        if let Some(shared) = &set.shared {
                            count = count.saturating_add(T::values(shared).len());
                            parts.push(Arc::clone(shared));
                        }
                    }
                    None => {
                        let (message, help) = self.unknown(&name);
                        findings.error_with_help(item.place, message, help);
                    }
                },
            }
            written.push(item.text);
        }
        count = count.saturating_add(own.len()).saturating_mul(times);
        expanded.add(count, place, findings);
        if !own.is_empty() {
            parts.push(Arc::new(T::share(own)));
        }
        T::list(parts, written)
    }

    /// Warns of the sets that nothing uses.
    pub(super) fn warn_of_unused(&self, findings: &mut [Findings]) {
        for (name, set) in &self.named {
            if !set.used
                && let Some(findings) = findings.get_mut(set.file)
            {
                let message = format!("nothing uses the set `{name}` of `{}`", T::FIELD);
                let help = format!("write `${name}` in a list, or take the set out");
                findings.warn(set.place, message, help);
            }
        }
    }

    /// What is wrong with a name that no set has, and what to write.
    fn unknown(&self, name: &str) -> (String, String) {
        let message = format!("there is no set `{name}` of `{}`", T::FIELD);
        let names: Vec<&str> = self.named.keys().map(|name| &**name).collect();
        let help = if self.others.iter().any(|other| **other == *name) {
            format!("`{name}` is a set of `{}`, which has no place here", T::OTHER)
        } else if let Some(word) = closest(name, &names) {
            format!("did you mean `${word}`?")
        } else if names.is_empty() {
            format!("no file of the policy has `{}`", T::FIELD)
        } else if names.len() <= 10 {
            let mut names = names;
            names.sort_unstable();
            format!("the sets of `{}` are {}", T::FIELD, one_of(&names))
        } else {
            format!("the policy has {} of `{}`", counted(names.len(), "set"), T::FIELD)
        };
        (message, help)
    }
}
