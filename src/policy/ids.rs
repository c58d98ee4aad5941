//! Sets of SPIFFE IDs, and values found by the patterns that match an ID.

use std::ops::ControlFlow;
use std::sync::Arc;

use foldhash::HashMap;

use crate::spiffe::pattern::Segment;
use crate::spiffe::{IdPattern, SpiffeId, TrustDomain};

/// Up to so many patterns are faster tried one by one than looked up.
const FEW: usize = 4;

/// Values under patterns. Finding those of all patterns that match an ID takes one look into a hash map, whatever the
/// number of patterns without wildcards, and a walk along the ID's segments for those with wildcards.
#[derive(Clone, Debug)]
pub(super) struct IdIndex<V> {
    exact: HashMap<SpiffeId, V>,
    domains: HashMap<TrustDomain, Node<V>>,
}

/// What patterns that begin alike have from one segment on.
#[derive(Clone, Debug, Default)]
struct Node<V> {
    literals: HashMap<Box<str>, Node<V>>,
    any: Option<Box<Node<V>>>,
    /// Of the pattern that ends here.
    end: Option<V>,
    /// Of the pattern that goes on from here with `/**`.
    tail: Option<V>,
}

impl<V> Default for IdIndex<V> {
    fn default() -> Self {
        Self {
            exact: HashMap::default(),
            domains: HashMap::default(),
        }
    }
}

impl<V: Default> IdIndex<V> {
    /// The value under a pattern, made where there is none.
    pub(super) fn entry(&mut self, pattern: &IdPattern) -> &mut V {
        if let Some(id) = pattern.as_exact() {
            return self.exact.entry(id).or_default();
        }
        let mut node = self.domains.entry(pattern.trust_domain().clone()).or_default();
        for segment in pattern.segments() {
            node = match segment {
                Segment::Literal(text) => node.literals.entry(text.into()).or_default(),
                Segment::Any => node.any.get_or_insert_default(),
            };
        }
        let place = if pattern.has_any_tail() {
            &mut node.tail
        } else {
            &mut node.end
        };
        place.get_or_insert_default()
    }

    /// Every value, to be finished.
    pub(super) fn values_mut(&mut self) -> Vec<&mut V> {
        let mut values: Vec<&mut V> = self.exact.values_mut().collect();
        let mut nodes: Vec<&mut Node<V>> = self.domains.values_mut().collect();
        while let Some(node) = nodes.pop() {
            values.extend(node.end.iter_mut().chain(&mut node.tail));
            nodes.extend(node.literals.values_mut());
            nodes.extend(node.any.as_deref_mut());
        }
        values
    }
}

impl<V> IdIndex<V> {
    pub(super) fn is_empty(&self) -> bool {
        self.exact.is_empty() && self.domains.is_empty()
    }

    /// Visits the values of all patterns that match `id`, until one visit breaks off.
    pub(super) fn visit<'v, B>(
        &'v self,
        id: &SpiffeId,
        visit: &mut impl FnMut(&'v V) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if let Some(value) = self.exact.get(id) {
            visit(value)?;
        }
        match self.domains.get(id.trust_domain()) {
            Some(root) => root.walk(id.path(), visit),
            None => ControlFlow::Continue(()),
        }
    }

    /// Visits the values of all patterns that match the shortest of the IDs that `pattern` stands for, whatever its
    /// wildcards are. Those of all patterns that cover it are among them.
    pub(super) fn visit_around<'v, B>(
        &'v self,
        pattern: &IdPattern,
        visit: &mut impl FnMut(&'v V) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if let Some(id) = pattern.as_exact() {
            return self.visit(&id, visit);
        }
        let segments: Vec<Segment<'_>> = pattern.segments().collect();
        match self.domains.get(pattern.trust_domain()) {
            Some(root) => root.walk_around(&segments, visit),
            None => ControlFlow::Continue(()),
        }
    }
}

impl<V> Node<V> {
    /// `path` is what is left of an ID's path: empty, or from a slash on. Goes as deep as the patterns do at most.
    fn walk<'v, B>(&'v self, path: &str, visit: &mut impl FnMut(&'v V) -> ControlFlow<B>) -> ControlFlow<B> {
        if let Some(tail) = &self.tail {
            visit(tail)?;
        }
        let Some(path) = path.strip_prefix('/') else {
            return self.end.as_ref().map_or(ControlFlow::Continue(()), visit);
        };
        let (segment, rest) = match path.find('/') {
            Some(at) => path.split_at(at),
            None => (path, ""),
        };
        if let Some(next) = self.literals.get(segment) {
            next.walk(rest, visit)?;
        }
        match &self.any {
            Some(next) => next.walk(rest, visit),
            None => ControlFlow::Continue(()),
        }
    }

    fn walk_around<'v, B>(
        &'v self,
        segments: &[Segment<'_>],
        visit: &mut impl FnMut(&'v V) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        if let Some(tail) = &self.tail {
            visit(tail)?;
        }
        let Some((segment, rest)) = segments.split_first() else {
            return self.end.as_ref().map_or(ControlFlow::Continue(()), visit);
        };
        if let Segment::Literal(text) = segment
            && let Some(next) = self.literals.get(*text)
        {
            next.walk_around(rest, visit)?;
        }
        match &self.any {
            Some(next) => next.walk_around(rest, visit),
            None => ControlFlow::Continue(()),
        }
    }
}

/// Patterns, any of which may match. Shared by all rules that use the set it comes from.
#[derive(Debug)]
pub(super) struct Ids {
    patterns: Box<[IdPattern]>,
    /// Where there are more than a few.
    index: Option<IdIndex<()>>,
}

impl Ids {
    pub(super) fn new(patterns: Vec<IdPattern>) -> Self {
        let index = (patterns.len() > FEW).then(|| {
            let mut index = IdIndex::default();
            for pattern in &patterns {
                *index.entry(pattern) = ();
            }
            index
        });
        Self {
            patterns: patterns.into(),
            index,
        }
    }

    pub(super) const fn patterns(&self) -> &[IdPattern] {
        &self.patterns
    }

    fn matches(&self, id: &SpiffeId) -> bool {
        match &self.index {
            Some(index) => index.visit(id, &mut |()| ControlFlow::Break(())).is_break(),
            None => self.patterns.iter().any(|pattern| pattern.matches(id)),
        }
    }
}

/// A list of a rule: its own patterns and those of the named sets it uses.
#[derive(Clone, Debug)]
pub(super) struct IdSet {
    parts: Box<[Arc<Ids>]>,
    written: Box<[Arc<str>]>,
}

impl IdSet {
    /// The parts, and the list as it is written.
    pub(super) fn new(parts: Vec<Arc<Ids>>, written: Vec<Arc<str>>) -> Self {
        Self {
            parts: parts.into(),
            written: written.into(),
        }
    }

    pub(super) fn matches(&self, id: &SpiffeId) -> bool {
        self.parts.iter().any(|part| part.matches(id))
    }

    pub(super) const fn parts(&self) -> &[Arc<Ids>] {
        &self.parts
    }

    /// All patterns.
    pub(super) fn patterns(&self) -> impl Iterator<Item = &IdPattern> + Clone {
        self.parts.iter().flat_map(|part| part.patterns())
    }

    /// The list as it is written, with `$name` for a set.
    pub(super) const fn written(&self) -> &[Arc<str>] {
        &self.written
    }
}
