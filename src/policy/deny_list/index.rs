//! Finds the entries that may hit: leaving out the others is all the index does, each candidate is judged in full.

use std::ops::ControlFlow;
use std::time::SystemTime;

use foldhash::HashMap;

use super::{Entry, What};
use crate::policy::facts::CertificateFacts;
use crate::policy::ids::IdIndex;
use crate::spiffe::SpiffeId;

/// Entries by what they name. Every list holds ascending positions.
#[derive(Debug, Default)]
pub(super) struct Index {
    ids: IdIndex<Vec<u32>>,
    serials: HashMap<Box<str>, Vec<u32>>,
    keys: HashMap<[u8; 32], Vec<u32>>,
    /// Of `issued_before`, by `from`.
    ages: IdIndex<Ages>,
    /// Of `issued_before`, without `from`.
    ages_of_all: Ages,
}

/// Entries with `issued_before`, each later than all before it: of others an earlier entry hits whatever they do.
#[derive(Clone, Debug, Default)]
struct Ages(Vec<(SystemTime, u32)>);

impl Index {
    pub(super) fn of(entries: &[Entry]) -> Self {
        let mut index = Self::default();
        for (at, entry) in (0..).zip(entries) {
            match &entry.what {
                What::Ids(ids) => {
                    for pattern in ids.patterns() {
                        index.ids.entry(pattern).push(at);
                    }
                }
                What::Serials(serials) => {
                    for serial in serials {
                        index.serials.entry(serial.clone()).or_default().push(at);
                    }
                }
                What::Keys(keys) => {
                    for key in keys {
                        index.keys.entry(*key).or_default().push(at);
                    }
                }
                What::IssuedBefore(time) => match &entry.from {
                    Some(from) => {
                        for pattern in from.patterns() {
                            index.ages.entry(pattern).add(*time, at);
                        }
                    }
                    None => index.ages_of_all.add(*time, at),
                },
            }
        }
        index
    }

    /// The first entry that hits.
    pub(super) fn find<'e>(
        &self,
        entries: &'e [Entry],
        peer: &SpiffeId,
        certificate: &CertificateFacts<'_>,
    ) -> Option<&'e Entry> {
        let mut first: Option<(u32, &Entry)> = None;
        let mut look = |at: u32| {
            if first.is_none_or(|(best, _)| at < best)
                && let Some(entry) = entries.get(at as usize)
                && entry.hits(peer, Some(certificate))
            {
                first = Some((at, entry));
            }
        };
        let listed = [
            self.serials.get(certificate.serial),
            self.keys.get(certificate.key_hash),
        ];
        listed
            .into_iter()
            .flatten()
            .flatten()
            .copied()
            .for_each(&mut look);
        self.ages_of_all
            .first(certificate.issued)
            .into_iter()
            .for_each(&mut look);
        let _: ControlFlow<()> = self.ages.visit(peer, &mut |ages| {
            ages.first(certificate.issued).into_iter().for_each(&mut look);
            ControlFlow::Continue(())
        });
        let _: ControlFlow<()> = self.ids.visit(peer, &mut |positions: &Vec<u32>| {
            positions.first().copied().into_iter().for_each(&mut look);
            ControlFlow::Continue(())
        });
        first.map(|(_, entry)| entry)
    }
}

impl Ages {
    fn add(&mut self, time: SystemTime, at: u32) {
        if self.0.last().is_none_or(|(latest, _)| time > *latest) {
            self.0.push((time, at));
        }
    }

    /// The first entry whose time is later than `issued`.
    fn first(&self, issued: SystemTime) -> Option<u32> {
        let at = self.0.partition_point(|(time, _)| *time <= issued);
        self.0.get(at).map(|(_, at)| *at)
    }
}
