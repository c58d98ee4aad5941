//! Any text is answered: a deny list, or what is wrong with it. The entry that is found is the first that hits; and
//! what is unknown hits.
#![no_main]

use std::time::{Duration, SystemTime};

use libfuzzer_sys::fuzz_target;
use svidecar::policy::deny_list::WrittenWhat;
use svidecar::policy::{CertificateFacts, deny_list};
use svidecar::spiffe::SpiffeId;

fuzz_target!(|text: &str| {
    let read = deny_list::read("deny.yaml", text);
    let written = read.entries.clone();
    let now = SystemTime::UNIX_EPOCH + Duration::from_secs(1_800_000_000);
    let Ok((list, _)) = deny_list::compile(read, now) else {
        return;
    };
    assert_eq!(list.entries().len(), written.len());
    let patterns = written.iter().flat_map(|entry| match &entry.what {
        WrittenWhat::Ids(ids) => ids.iter().chain(entry.from.iter().flatten()),
        _ => [].iter().chain(entry.from.iter().flatten()),
    });
    let named = patterns.filter_map(|p| SpiffeId::new(p.text().replace("**", "x").replace('*', "y")).ok());
    let anybody = SpiffeId::new("spiffe://example.org/x").expect("an ID");
    let serial = written.iter().find_map(|entry| match &entry.what {
        WrittenWhat::Serials(serials) => serials.first(),
        _ => None,
    });
    let key = written.iter().find_map(|entry| match &entry.what {
        WrittenWhat::Keys(keys) => keys.first(),
        _ => None,
    });
    for peer in named.take(3).chain([anybody]) {
        let unlisted = CertificateFacts::unlisted(now);
        let listed = CertificateFacts {
            serial: serial.map_or("", |serial| serial),
            key_hash: key.unwrap_or(&[0; 32]),
            issued: SystemTime::UNIX_EPOCH,
        };
        for certificate in [None, Some(&unlisted), Some(&listed)] {
            let found = list.find(&peer, certificate);
            let first = list.entries().iter().find(|entry| entry.hits(&peer, certificate));
            assert_eq!(found.map(|entry| entry.name()), first.map(|entry| entry.name()));
            if certificate.is_some() && found.is_some() {
                assert!(list.find(&peer, None).is_some(), "what is not known hits");
            }
        }
    }
});
