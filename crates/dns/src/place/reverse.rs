//! Names in a reverse zone: addresses, and the ranges above them.

use std::net::IpAddr;

use super::{Absence, Place};
use crate::names::Names;

pub(super) fn place(names: &Names, labels: &[String]) -> Place {
    let Some((first, last)) = reverse_range(labels) else {
        return Place::Absent(Absence::NoAddress);
    };
    if first != last {
        return if names.addresses.any_in(first..=last) {
            Place::Empty
        } else {
            Place::Absent(Absence::NoAddress)
        };
    }
    let (book, settings) = (&names.addresses, &names.settings);
    // Without names of endpoints there is none to point to.
    let endpoints = book.endpoint_of(first).filter(|_| settings.endpoints);
    let outside = book.outside_of(first).filter(|_| settings.external_zone().is_some());
    let mut keys = book.virtual_of(first).chain(endpoints).chain(outside);
    let owned = keys.any(|key| names.shows_key(key));
    if owned { Place::Address(first) } else { Place::Absent(Absence::NoAddress) }
}

/// The range of addresses that a reverse name stands for: one address for a
/// whole name, more for a part of one. `None` when it is no reverse name.
fn reverse_range(labels: &[String]) -> Option<(IpAddr, IpAddr)> {
    let (digits, family) = labels.split_at_checked(labels.len().checked_sub(2)?)?;
    let digits = digits.iter().rev();
    match family {
        [in_addr, arpa] if in_addr == "in-addr" && arpa == "arpa" => {
            let mut address = 0_u32;
            let mut rest = 32_u32;
            for digit in digits {
                let plain = digit == "0" || !digit.starts_with(['0', '+']);
                let value: u8 = digit.parse().ok().filter(|_| plain)?;
                rest = rest.checked_sub(8)?;
                address |= u32::from(value) << rest;
            }
            let last = address | u32::MAX.checked_shr(32 - rest).unwrap_or(0);
            Some((IpAddr::V4(address.into()), IpAddr::V4(last.into())))
        }
        [ip6, arpa] if ip6 == "ip6" && arpa == "arpa" => {
            let mut address = 0_u128;
            let mut rest = 128_u32;
            for digit in digits {
                let value = match digit.as_bytes() {
                    [byte] => char::from(*byte).to_digit(16)?,
                    _ => return None,
                };
                rest = rest.checked_sub(4)?;
                address |= u128::from(value) << rest;
            }
            let last = address | u128::MAX.checked_shr(128 - rest).unwrap_or(0);
            Some((IpAddr::V6(address.into()), IpAddr::V6(last.into())))
        }
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reverse_names_are_ranges() {
        for (name, expected) in [
            ("4.3.2.1.in-addr.arpa", Some(("1.2.3.4", "1.2.3.4"))),
            ("2.1.in-addr.arpa", Some(("1.2.0.0", "1.2.255.255"))),
            ("in-addr.arpa", Some(("0.0.0.0", "255.255.255.255"))),
            (
                "8.b.d.0.1.0.0.2.ip6.arpa",
                Some(("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff")),
            ),
            ("5.4.3.2.1.in-addr.arpa", None),
            ("256.in-addr.arpa", None),
            ("01.in-addr.arpa", None),
            ("+1.in-addr.arpa", None),
            ("x.in-addr.arpa", None),
            ("10.ip6.arpa", None),
            ("g.ip6.arpa", None),
            ("arpa", None),
        ] {
            let labels: Vec<String> = name.split('.').map(str::to_owned).collect();
            let range =
                reverse_range(&labels).map(|(first, last)| (first.to_string(), last.to_string()));
            let expected = expected.map(|(first, last)| (first.to_owned(), last.to_owned()));
            assert_eq!(range, expected, "{name}");
        }
    }
}
