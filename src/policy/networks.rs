//! Sets of networks, and values found by the networks that an address is in.
//!
//! Own code rather than a trie of a library: the index is asked for each length of prefix that occurs, which are few in
//! any policy, by one look into a hash map; it allocates nothing, and is thirty lines.

use std::net::IpAddr;
use std::ops::ControlFlow;
use std::sync::Arc;

use foldhash::HashMap;
use ipnet::IpNet;

/// Up to so many networks are faster tried one by one than looked up.
const FEW: usize = 8;

/// Values under networks.
#[derive(Clone, Debug)]
pub(super) struct NetworkIndex<V> {
    four: Family<V>,
    six: Family<V>,
}

/// The networks of one address family.
#[derive(Clone, Debug)]
struct Family<V> {
    /// The lengths of prefix that occur.
    lengths: Vec<u8>,
    /// By length of prefix, and prefix with zeros behind it.
    values: HashMap<(u8, u128), V>,
}

impl<V> Default for Family<V> {
    fn default() -> Self {
        Self {
            lengths: Vec::new(),
            values: HashMap::default(),
        }
    }
}

impl<V> Default for NetworkIndex<V> {
    fn default() -> Self {
        Self {
            four: Family::default(),
            six: Family::default(),
        }
    }
}

impl<V: Default> NetworkIndex<V> {
    /// The value under a network, made where there is none.
    pub(super) fn entry(&mut self, network: IpNet) -> &mut V {
        let (family, bits, length) = match network {
            IpNet::V4(net) => (&mut self.four, widened(net.addr().to_bits()), net.prefix_len()),
            IpNet::V6(net) => (&mut self.six, net.addr().to_bits(), net.prefix_len()),
        };
        if !family.lengths.contains(&length) {
            family.lengths.push(length);
        }
        family.values.entry((length, bits & mask(length))).or_default()
    }
}

impl<V> NetworkIndex<V> {
    /// Visits the values of all networks that `network`, or the address that it is, lies in.
    pub(super) fn visit<'v, B>(
        &'v self,
        network: IpNet,
        visit: &mut impl FnMut(&'v V) -> ControlFlow<B>,
    ) -> ControlFlow<B> {
        let (family, bits) = match network {
            IpNet::V4(net) => (&self.four, widened(net.addr().to_bits())),
            IpNet::V6(net) => (&self.six, net.addr().to_bits()),
        };
        for length in &family.lengths {
            if *length <= network.prefix_len()
                && let Some(value) = family.values.get(&(*length, bits & mask(*length)))
            {
                visit(value)?;
            }
        }
        ControlFlow::Continue(())
    }
}

/// An IPv4 address in the high bits, where prefixes of both families are masked alike.
fn widened(bits: u32) -> u128 {
    u128::from(bits) << 96
}

fn mask(length: u8) -> u128 {
    u128::MAX
        .checked_shl(128_u32.saturating_sub(u32::from(length)))
        .unwrap_or(0)
}

/// Networks, any of which an address may be in. Shared by all rules that use the set it comes from.
#[derive(Debug)]
pub(super) struct Networks {
    networks: Box<[IpNet]>,
    /// Where there are more than a few.
    index: Option<NetworkIndex<()>>,
}

impl Networks {
    pub(super) fn new(networks: Vec<IpNet>) -> Self {
        let index = (networks.len() > FEW).then(|| {
            let mut index = NetworkIndex::default();
            for network in &networks {
                *index.entry(*network) = ();
            }
            index
        });
        Self {
            networks: networks.into(),
            index,
        }
    }

    pub(super) const fn networks(&self) -> &[IpNet] {
        &self.networks
    }

    fn contains(&self, address: IpAddr) -> bool {
        match &self.index {
            Some(index) => index
                .visit(IpNet::from(address), &mut |()| ControlFlow::Break(()))
                .is_break(),
            None => self.networks.iter().any(|network| network.contains(&address)),
        }
    }
}

/// A list of a rule: its own networks and those of the named sets it uses. IPv4-mapped ones are IPv4.
#[derive(Clone, Debug)]
pub(super) struct NetworkSet {
    parts: Box<[Arc<Networks>]>,
    written: Box<[Arc<str>]>,
}

impl NetworkSet {
    /// The parts, and the list as it is written.
    pub(super) fn new(parts: Vec<Arc<Networks>>, written: Vec<Arc<str>>) -> Self {
        Self {
            parts: parts.into(),
            written: written.into(),
        }
    }

    /// Whether an address, which is not an IPv4-mapped one, is in one of the networks.
    pub(super) fn contains(&self, address: IpAddr) -> bool {
        self.parts.iter().any(|part| part.contains(address))
    }

    pub(super) const fn parts(&self) -> &[Arc<Networks>] {
        &self.parts
    }

    /// All networks.
    pub(super) fn networks(&self) -> impl Iterator<Item = &IpNet> {
        self.parts.iter().flat_map(|part| part.networks())
    }

    /// The list as it is written, with `$name` for a set.
    pub(super) const fn written(&self) -> &[Arc<str>] {
        &self.written
    }
}
