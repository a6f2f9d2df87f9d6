//! Addresses at which this machine, its cloud or its network answer questions that are nobody else's, and who may lead us there.
//!
//! A name says nothing of where it leads, and may lead elsewhere the next time it is asked for. So it is looked at when a client connects,
//! and exactly the addresses that were looked at are connected to. Through a proxy the proxy looks names up, and it is its owner's to say
//! what it reaches.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::sync::{Arc, Mutex, PoisonError};

use hyper_util::client::proxy::matcher::Matcher;
use reqwest::dns::{Addrs, Name, Resolve, Resolving};

/// How near an address is: what comes later is nobody's but this machine's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub(super) enum Nearness {
    Outside,
    /// Of a network that is not everybody's (RFC 1918, RFC 4193, RFC 6598).
    Private,
    /// Where clouds tell machines who they are: link-local addresses (RFC 3927, RFC 4291), and those of services elsewhere.
    Cloud,
    /// Loopback and unspecified addresses (RFC 1122, RFC 4291).
    Machine,
}

impl fmt::Display for Nearness {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Outside => "an address for everybody",
            Self::Private => "an address of a private network",
            Self::Cloud => "a link-local address or a cloud's own",
            Self::Machine => "an address of this machine",
        })
    }
}

/// What somebody leads us to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Lead {
    /// Content, which may be stored in the network that the registry itself was reached from.
    Content,
    /// A token server, which is shown secrets and asked questions.
    Access,
}

/// Addresses of metadata services that are not link-local: Azure's, Alibaba's, Oracle's, and those of EC2 and Google over IPv6.
const SERVICES: [(IpAddr, u32); 5] = [
    (IpAddr::V4(Ipv4Addr::new(168, 63, 129, 16)), 32),
    (IpAddr::V4(Ipv4Addr::new(100, 100, 100, 200)), 32),
    (IpAddr::V4(Ipv4Addr::new(192, 0, 0, 192)), 32),
    (IpAddr::V6(Ipv6Addr::new(0xfd00, 0xec2, 0, 0, 0, 0, 0, 0)), 32),
    (IpAddr::V6(Ipv6Addr::new(0xfd20, 0xce, 0, 0, 0, 0, 0, 0)), 64),
];

/// Where an address is.
pub(super) fn nearness(address: IpAddr) -> Nearness {
    let address = plain(address);
    if SERVICES.iter().any(|(service, length)| is_within(address, *service, *length)) {
        return Nearness::Cloud;
    }
    match address {
        IpAddr::V4(v4) => match v4.octets() {
            [0, ..] => Nearness::Machine,
            _ if v4.is_loopback() => Nearness::Machine,
            _ if v4.is_link_local() => Nearness::Cloud,
            [100, 64..=127, ..] => Nearness::Private,
            _ if v4.is_private() => Nearness::Private,
            _ => Nearness::Outside,
        },
        IpAddr::V6(v6) if v6.is_loopback() || v6.is_unspecified() => Nearness::Machine,
        IpAddr::V6(v6) if v6.is_unicast_link_local() => Nearness::Cloud,
        // Site-local addresses (fec0::/10) are deprecated, and routed where somebody still has them.
        IpAddr::V6(v6) if v6.is_unique_local() || v6.segments()[0] & 0xffc0 == 0xfec0 => Nearness::Private,
        IpAddr::V6(_) => Nearness::Outside,
    }
}

/// The IPv4 address that an IPv6 address stands for, where it does: mapped and compatible ones (RFC 4291, 2.5.5), those of NAT64 (RFC
/// 6052) and of 6to4 (RFC 3056).
fn plain(address: IpAddr) -> IpAddr {
    let IpAddr::V6(v6) = address.to_canonical() else { return address.to_canonical() };
    let v4 = |high: u16, low: u16| {
        let ([a, b], [c, d]) = (high.to_be_bytes(), low.to_be_bytes());
        IpAddr::V4(Ipv4Addr::new(a, b, c, d))
    };
    match v6.segments() {
        [0, 0, 0, 0, 0, 0, 0, 0 | 1] => address,
        [0, 0, 0, 0, 0, 0, high, low]
        | [0, 0, 0, 0, 0xffff, 0, high, low]
        | [0x64, 0xff9b, 0, 0, 0, 0, high, low]
        // A translator of one's own may have any prefix within this (RFC 8215); most have the address at the end (RFC 6052).
        | [0x64, 0xff9b, 1, _, _, _, high, low]
        | [0x2002, high, low, ..] => v4(high, low),
        _ => address,
    }
}

fn is_within(address: IpAddr, network: IpAddr, length: u32) -> bool {
    match (address, network) {
        (IpAddr::V4(address), IpAddr::V4(network)) => {
            (address.to_bits() ^ network.to_bits()).leading_zeros() >= length
        }
        (IpAddr::V6(address), IpAddr::V6(network)) => {
            (address.to_bits() ^ network.to_bits()).leading_zeros() >= length
        }
        _ => false,
    }
}

/// Whether a registry that is so near may lead us to what is so near.
pub(super) fn may_lead(own: Nearness, to: Nearness, lead: Lead) -> bool {
    match to {
        Nearness::Outside => true,
        Nearness::Private => lead == Lead::Content || own >= Nearness::Private,
        Nearness::Cloud | Nearness::Machine => own == to,
    }
}

/// A name that leads where its registry has no business to lead us.
#[derive(Debug, thiserror::Error)]
#[error("{registry} leads to {name}, and {address} is {nearness}: nothing was asked there")]
pub(crate) struct NearError {
    registry: String,
    name: String,
    address: IpAddr,
    nearness: Nearness,
}

impl NearError {
    /// What is wrong with a token server of this name.
    pub(super) fn why(&self) -> &'static str {
        match self.nearness {
            Nearness::Outside | Nearness::Private => {
                "its name leads into a private network, where the registry is not"
            }
            Nearness::Cloud | Nearness::Machine => "its name leads to this machine or its neighbour",
        }
    }
}

/// Whether a name was refused, anywhere below this error.
pub(crate) fn refused<'e>(error: &'e (dyn std::error::Error + 'static)) -> Option<&'e NearError> {
    std::iter::successors(Some(error), |error| error.source()).find_map(|error| error.downcast_ref())
}

/// A host that the user named, or that we were sent to by whom the user named: a registry above all.
#[derive(Debug)]
pub(crate) struct Named {
    host: String,
    /// How near it is: the least of what was ever found, for its name may be one thing now and another then.
    nearness: Mutex<Option<Nearness>>,
}

impl Named {
    /// A registry (host, with port if any).
    pub(crate) fn new(registry: &str) -> Arc<Self> {
        let url = reqwest::Url::parse(&format!("https://{registry}")).ok();
        let host = url.and_then(|url| url.host_str().map(str::to_owned)).unwrap_or_default();
        let nearness = Mutex::new(literal(&host));
        Arc::new(Self { host, nearness })
    }

    /// Those of a name's addresses that it may lead a client to.
    fn allows(
        &self,
        name: &str,
        lead: Lead,
        found: Vec<SocketAddr>,
    ) -> Result<Vec<SocketAddr>, (IpAddr, Nearness)> {
        let mut known = self.nearness.lock().unwrap_or_else(PoisonError::into_inner);
        if !name.eq_ignore_ascii_case(&self.host) {
            return among(found, known.unwrap_or(Nearness::Outside), lead);
        }
        *known = found.iter().map(|address| nearness(address.ip())).chain(*known).min();
        // Its own name, too, may lead elsewhere the next time.
        among(found, known.unwrap_or(Nearness::Outside), Lead::Content)
    }
}

/// Looks names up for a client that somebody leads.
pub(crate) struct Apart {
    named: Arc<Named>,
    lead: Lead,
    /// Names of proxies, which the user's environment has.
    proxies: Vec<String>,
}

impl Apart {
    pub(crate) fn new(named: &Arc<Named>, lead: Lead) -> Self {
        // The client finds its proxies in the same way.
        let proxies = Matcher::from_system();
        let of = |scheme: &str| {
            let proxy = proxies.intercept(&format!("{scheme}://proxied.invalid").parse().ok()?)?;
            proxy.uri().host().map(str::to_owned)
        };
        let proxies = ["http", "https"].into_iter().filter_map(of).collect();
        Self { named: Arc::clone(named), lead, proxies }
    }
}

/// How near a host is that is an address itself.
pub(super) fn literal(host: &str) -> Option<Nearness> {
    if host == "localhost" {
        return Some(Nearness::Machine);
    }
    address(host).map(nearness)
}

/// The address that a URL's host is, where it is one.
pub(super) fn address(host: &str) -> Option<IpAddr> {
    host.trim_start_matches('[').trim_end_matches(']').parse().ok()
}

impl Resolve for Apart {
    fn resolve(&self, name: Name) -> Resolving {
        let (name, named, lead) = (name.as_str().to_owned(), Arc::clone(&self.named), self.lead);
        let is_proxy = self.proxies.iter().any(|proxy| proxy.eq_ignore_ascii_case(&name));
        Box::pin(async move {
            let found = tokio::net::lookup_host((name.as_str(), 0)).await?.collect::<Vec<_>>();
            let allowed = if is_proxy { Ok(found) } else { named.allows(&name, lead, found) };
            match allowed {
                Ok(addresses) => Ok(Box::new(addresses.into_iter()) as Addrs),
                Err((address, nearness)) => {
                    Err(NearError { registry: named.host.clone(), name, address, nearness }.into())
                }
            }
        })
    }
}

/// Those of a name's addresses that may be connected to; where there are some, but none of these, one of them.
fn among(found: Vec<SocketAddr>, own: Nearness, lead: Lead) -> Result<Vec<SocketAddr>, (IpAddr, Nearness)> {
    let (good, bad): (Vec<_>, Vec<_>) =
        found.into_iter().partition(|address| may_lead(own, nearness(address.ip()), lead));
    match bad.first() {
        Some(address) if good.is_empty() => Err((address.ip(), nearness(address.ip()))),
        _ => Ok(good),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn how_near_addresses_are() {
        let addresses = "
            8.8.8.8 2001:db8::1 255.255.255.255 224.0.0.1 172.32.0.1 100.128.0.1 169.253.0.1
            10.0.0.1 172.16.0.1 172.31.255.255 192.168.1.1 100.64.0.1 fc00::1 fdff::1 fec0::1
            169.254.169.254 169.254.0.1 fe80::1 febf::1 168.63.129.16 100.100.100.200 192.0.0.192 fd00:ec2::254 fd20:ce::254
            127.0.0.1 127.255.255.254 0.0.0.0 0.1.2.3 :: ::1
            ::ffff:127.0.0.1 ::ffff:169.254.169.254 ::169.254.169.254 ::10.0.0.1 64:ff9b::7f00:1 64:ff9b::a9fe:a9fe 2002:a9fe:a9fe::1
            2002:a00:1:: ::ffff:8.8.8.8 64:ff9b::808:808 64:ff9b:1::a9fe:a9fe 64:ff9b:1::808:808 ::ffff:0:a9fe:a9fe";
        let line = |address: &str| format!("{address} {:?}\n", nearness(address.parse().unwrap()));
        insta::assert_snapshot!(addresses.split_whitespace().map(line).collect::<String>());
    }

    #[test]
    fn who_may_lead_where() {
        use Nearness::{Cloud, Machine, Outside, Private};
        let all = [Outside, Private, Cloud, Machine];
        let mut text = String::new();
        for lead in [Lead::Content, Lead::Access] {
            for own in all {
                let places = all.into_iter().filter(|to| may_lead(own, *to, lead));
                text += &format!("{lead:?}: {own:?} leads to {:?}\n", places.collect::<Vec<_>>());
            }
        }
        insta::assert_snapshot!(text);
    }

    #[test]
    fn of_a_name_with_many_addresses_only_those_are_connected_to_that_may_be() {
        let addresses = |text: &str| {
            text.split(' ').map(|address| SocketAddr::new(address.parse().unwrap(), 0)).collect::<Vec<_>>()
        };
        let found = addresses("127.0.0.1 8.8.8.8 169.254.169.254 10.0.0.1");
        let kept = |lead| among(found.clone(), Nearness::Outside, lead).unwrap();
        assert_eq!(kept(Lead::Content), addresses("8.8.8.8 10.0.0.1"));
        assert_eq!(kept(Lead::Access), addresses("8.8.8.8"));
        let none = among(addresses("169.254.169.254 ::1"), Nearness::Outside, Lead::Content).unwrap_err();
        assert_eq!(none, (found[2].ip(), Nearness::Cloud));
        assert_eq!(among(Vec::new(), Nearness::Outside, Lead::Content), Ok(Vec::new()));
    }
}
