//! What is found in a text, whatever it stands in.

use proptest::prelude::*;

use super::*;

#[test]
fn an_address_is_found_wherever_it_stands() {
    for (text, left) in [
        ("http://10.0.0.1:4317/x", "http://***/x"),
        ("tcp:10.0.0.1:80", "tcp:***"),
        ("tcp://[::1]:80/", "tcp://***/"),
        ("10.0.0.1-10.0.0.9", "***-***"),
        ("10.0.0.1..10.0.0.9", "***..***"),
        ("10.0.0.1,10.0.0.2;10.0.0.3/10.0.0.4", "***,***;***/***"),
        ("10.0.0.1:10.0.0.2", "***:***"),
        ("10.0.0.1:80:2001:db8::1", "***:***"),
        ("pod_10.0.0.1_x v10.0.0.2y", "pod_***_x v***y"),
        ("010.001.002.003", "***"),
        ("10.0.0.1.4711, 7.10.0.0.1", "***, ***"),
        ("10.0.0.1.nip.io", "***.nip.io"),
        ("10.0.0.0/8, 10.0.0.0/99", "***, ***/99"),
        ("2001:db8:1:2::", "***"),
        ("2001:db8:1:2::: x", "***: x"),
        ("from ::1: refused", "from ***: refused"),
        ("2001:DB8::A.", "***."),
        ("1:2:3:4:5:6:7:8:443", "***"),
        ("2001:db8::/32", "***"),
        ("::ffff:10.1.2.3", "***"),
        ("[::ffff:10.1.2.3]:80", "***"),
        ("[fe80::1%eth0]:80", "***"),
        ("fe80::1%eth0.100.", "***."),
        ("[::]:8443 and [::1]x", "*** and ***x"),
        ("udp:2001:db8::1", "udp:***"),
        ("decade:2001:db8::1", "decade:***"),
        ("x2001:db8::1y", "x***y"),
        ("host-2001:db8::1-2001:db8::2", "host-***-***"),
        ("2001:db8::1/2001:db8::2", "***/***"),
        ("2001:db8::1:2001:db8::2", "******"),
        ("ü10.0.0.1ü2001:db8::1ü", "ü***ü***ü"),
        ("{\"a\":\"10.0.0.1\"}", "{\"a\":\"***\"}"),
    ] {
        let rules = [rule(&[], RedactionFind::Ip, Redact::Mask)];
        assert_eq!(redacted(&rules, "detail", text.into()), left, "{text}");
    }
    let rules = [rule(&[], RedactionFind::Ip, keep(0))];
    for (text, left) in [
        // No network is made smaller than it was.
        ("10.0.0.0/8", "10.0.0.0/8"),
        ("10.1.2.3/30", "10.1.2.0/24"),
        ("2001:db8::/32", "2001:db8::/32"),
        ("tcp://10.1.2.3:80", "tcp://10.1.2.0/24"),
    ] {
        assert_eq!(redacted(&rules, "detail", text.into()), left, "{text}");
    }
}

#[test]
fn a_name_that_is_claimed_is_found_whatever_it_is_made_of() {
    use crate::spiffe::svid::{Defect, LeafError};
    use crate::tls::verify::Refusal;

    let mask = [rule(&[], RedactionFind::SpiffeId, Redact::Mask)];
    for (text, left) in [
        ("SPIFFE://td/ada", "***"),
        ("x=Spiffe://td/a@b+c~ü!$&'()*,;=d, next", "x=***, next"),
        ("(spiffe://td/a), spiffe://td/b: it is", "(***), ***: it is"),
        ("\"spiffe://td/a\" `spiffe://td/a b\"c` d", "\"***\" `***` d"),
        ("`spiffe://td/cut…", "`***"),
        ("spiffe://td/a\tb", "***\tb"),
        ("from: ['spiffe://td/a']", "from: ['***']"),
        ("spiffe:// is a scheme", "*** is a scheme"),
        (
            "the peer claims `mailto:ada@example.org`",
            "the peer claims `***`",
        ),
        ("the peer claims `ada`, but", "the peer claims `***`, but"),
        ("the peer claims `` or `x`", "the peer claims `` or `x`"),
    ] {
        assert_eq!(redacted(&mask, "detail", text.into()), left, "{text}");
    }
    let hash = [rule(&[], RedactionFind::SpiffeId, Redact::Hash)];
    let keeping = [rule(&[], RedactionFind::SpiffeId, keep(1))];
    // What is before the path is kept where it is a trust domain alone.
    for (text, kept) in [
        ("spiffe://td/a/ada", "spiffe://td/a/…"),
        ("spiffe://ada@td/a/b", "spiffe:///a/…"),
        ("spiffe://td:ada/a/b", "spiffe:///a/…"),
        ("spiffe://td?ada", "spiffe://td"),
        ("claims `mailto:ada`", "claims `***`"),
    ] {
        assert_eq!(redacted(&keeping, "detail", text.into()), kept, "{text}");
        let hashed = redacted(&hash, "detail", text.into());
        assert!(!hashed.as_str().unwrap().contains("ada"), "{hashed}");
    }
    // The texts in which such names stand.
    let uri = "https://ada.example/".to_owned();
    let defect = Defect::InvalidId {
        uri: uri.clone(),
        problem: "no SPIFFE scheme".to_owned(),
        rule: crate::spiffe::svid::rule::ID_SCHEME,
    };
    let refusal = Refusal::Leaf {
        error: LeafError::from(defect),
        claimed: Some(uri),
    };
    let text = refusal.to_string();
    assert_eq!(text.matches("ada").count(), 2, "{text}");
    let left = redacted(&mask, "detail", text.into());
    assert!(!left.to_string().contains("ada"), "{left}");
}

proptest! {
    /// Whatever text an address or an ID stands in, it is gone, and redacting again changes nothing more.
    #[test]
    fn nothing_stays(
        before in "((\\PC|[a-f0-9:.]){0,14}[:.,%/@+\\[\\]\"`_ ~é-])?",
        after in "([:.,%/@+\\[\\]\"`_ ~é-](\\PC|[a-f0-9:.]){0,14})?",
        four in any::<[u8; 4]>(), six in any::<[u16; 8]>(), zeros in 0..8_usize, secret in "[^\\s\"`\\pC]{1,12}",
    ) {
        let mut six = six;
        six.iter_mut().skip(8 - zeros).for_each(|group| *group = 0);
        let (four, six) = (IpAddr::from(four), IpAddr::from(six));
        // In capitals and in brackets it is the same.
        let upper = six.to_string().to_uppercase();
        let id = format!("spiffe://td/ada{secret}");
        let around = |text: &str| format!("{before}{text}{after}");
        let cases = [
            (RedactionFind::Ip, four.to_string()),
            (RedactionFind::Ip, six.to_string()),
            (RedactionFind::Ip, upper),
            (RedactionFind::SpiffeId, id.clone()),
            (RedactionFind::SpiffeId, id.to_uppercase()),
        ];
        for (find, hidden) in cases {
            // One address is part of another by chance where it is short.
            prop_assume!(!around("").contains(&hidden) && hidden.len() > 6);
            let rules = [rule(&[], find, Redact::Mask)];
            let left = redacted(&rules, "detail", around(&hidden).into());
            let shown = left.as_str().unwrap();
            prop_assert!(!shown.contains(&hidden), "{} of {}", shown, around(&hidden));
            prop_assert!(!shown.to_lowercase().contains("td/ada"), "{}", shown);
            prop_assert_eq!(&redacted(&rules, "detail", left.clone()), &left);
        }
    }

    /// Digits and letters around an address hide it no more than anything else, but a digit that makes it another number.
    #[test]
    fn letters_do_not_hide(before in "[a-zA-Z]{0,4}", after in "[g-zG-Z]{0,4}", four in any::<[u8; 4]>(), six in any::<[u16; 8]>()) {
        let rules = [rule(&[], RedactionFind::Ip, Redact::Mask)];
        let of_four = IpAddr::from(four);
        let left = redacted(&rules, "detail", format!("{before}{of_four}{after}").into());
        prop_assert_eq!(left, format!("{before}***{after}"));
        let before = before.trim_end_matches(|c: char| c.is_ascii_hexdigit());
        let of_six = IpAddr::from(six);
        let left = redacted(&rules, "detail", format!("{before}{of_six}{after}").into());
        prop_assert_eq!(left, format!("{before}***{after}"));
    }
}
