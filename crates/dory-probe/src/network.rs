//! Just enough netlink to see whether links and NAT can be made.

use std::io;

use dory_sys::netlink::{NetlinkProtocol, NetlinkSocket};

const NLM_F_REQUEST: u16 = 1;
const NLM_F_ACK: u16 = 4;
const NLM_F_EXCL: u16 = 0x200;
const NLM_F_CREATE: u16 = 0x400;
const NLMSG_ERROR: u16 = 2;
const NLA_F_NESTED: u16 = 0x8000;

const RTM_NEWLINK: u16 = 16;
const IFLA_LINKINFO: u16 = 18;
const IFLA_INFO_KIND: u16 = 1;

const NFNL_MSG_BATCH_BEGIN: u16 = 0x10;
const NFNL_MSG_BATCH_END: u16 = 0x11;
const NFNL_SUBSYS_NFTABLES: u16 = 10;
const NFT_MSG_NEWTABLE: u16 = NFNL_SUBSYS_NFTABLES << 8;
const NFT_MSG_NEWCHAIN: u16 = NFNL_SUBSYS_NFTABLES << 8 | 3;
const NFPROTO_IPV4: u8 = 2;
const NF_INET_POST_ROUTING: u32 = 4;

/// An attribute, padded to four bytes.
fn attribute(kind: u16, payload: &[u8]) -> Vec<u8> {
    let length = u16::try_from(payload.len() + 4).expect("the probe's attributes are small");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(payload);
    bytes.resize(bytes.len().next_multiple_of(4), 0);
    bytes
}

fn message(kind: u16, flags: u16, sequence: u32, payload: &[u8]) -> Vec<u8> {
    let length = u32::try_from(payload.len() + 16).expect("the probe's messages are small");
    let mut bytes = length.to_ne_bytes().to_vec();
    bytes.extend_from_slice(&kind.to_ne_bytes());
    bytes.extend_from_slice(&(NLM_F_REQUEST | flags).to_ne_bytes());
    bytes.extend_from_slice(&sequence.to_ne_bytes());
    bytes.extend_from_slice(&[0; 4]);
    bytes.extend_from_slice(payload);
    bytes
}

/// Makes a link of `kind`, named by the kernel.
pub(crate) fn add_link(kind: &str) -> io::Result<()> {
    let information = attribute(IFLA_LINKINFO | NLA_F_NESTED, &attribute(IFLA_INFO_KIND, kind.as_bytes()));
    // An interface header of zeroes asks for nothing in particular.
    let payload = [vec![0; 16], information].concat();
    let request = message(RTM_NEWLINK, NLM_F_ACK | NLM_F_CREATE | NLM_F_EXCL, 1, &payload);
    transact(NetlinkProtocol::Route, &request, 1)
}

/// Makes a table with a source NAT chain, in one batch.
pub(crate) fn add_nat_chain() -> io::Result<()> {
    let header = |family: u8, resource: u16| {
        let [high, low] = resource.to_be_bytes();
        [family, 0, high, low]
    };
    let table = [&header(NFPROTO_IPV4, 0)[..], &attribute(1, b"dory-probe\0")].concat();
    let hook =
        [attribute(1, &NF_INET_POST_ROUTING.to_be_bytes()), attribute(2, &100_u32.to_be_bytes())].concat();
    let chain = [
        &header(NFPROTO_IPV4, 0)[..],
        &attribute(1, b"dory-probe\0"),
        &attribute(3, b"out\0"),
        &attribute(4 | NLA_F_NESTED, &hook),
        &attribute(7, b"nat\0"),
    ]
    .concat();
    let batch = header(0, NFNL_SUBSYS_NFTABLES);
    let request = [
        message(NFNL_MSG_BATCH_BEGIN, 0, 1, &batch),
        message(NFT_MSG_NEWTABLE, NLM_F_ACK | NLM_F_CREATE, 2, &table),
        message(NFT_MSG_NEWCHAIN, NLM_F_ACK | NLM_F_CREATE, 3, &chain),
        message(NFNL_MSG_BATCH_END, 0, 4, &batch),
    ]
    .concat();
    transact(NetlinkProtocol::Netfilter, &request, 2)
}

/// Sends and reads until an error or `acknowledgements` came back.
fn transact(protocol: NetlinkProtocol, request: &[u8], acknowledgements: usize) -> io::Result<()> {
    let socket = NetlinkSocket::open(protocol)?;
    socket.send(request)?;
    let mut buffer = Vec::new();
    let mut seen = 0;
    while seen < acknowledgements {
        socket.receive(&mut buffer)?;
        seen += count_acknowledgements(&buffer)?;
    }
    Ok(())
}

/// Acknowledgements in a datagram.
///
/// # Errors
/// The first error that it carries; `InvalidData` where it is cut off.
fn count_acknowledgements(mut datagram: &[u8]) -> io::Result<usize> {
    let mut count = 0;
    while let Some((header, _)) = datagram.split_first_chunk::<16>() {
        let length = u32::from_ne_bytes([header[0], header[1], header[2], header[3]]);
        let length = usize::try_from(length).map_err(|_| io::ErrorKind::InvalidData)?;
        let message =
            datagram.get(..length).filter(|message| message.len() >= 16).ok_or(io::ErrorKind::InvalidData)?;
        if u16::from_ne_bytes([header[4], header[5]]) == NLMSG_ERROR {
            let code = message[16..].first_chunk::<4>().ok_or(io::ErrorKind::InvalidData)?;
            match i32::from_ne_bytes(*code) {
                0 => count += 1,
                code => return Err(io::Error::from_raw_os_error(-code)),
            }
        }
        datagram = datagram.get(length.next_multiple_of(4)..).unwrap_or_default();
    }
    Ok(count)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn reads_acknowledgements_and_errors() {
        let answer = |code: i32| message(NLMSG_ERROR, 0, 1, &[&code.to_ne_bytes()[..], &[0; 16]].concat());
        assert_eq!(count_acknowledgements(&[answer(0), answer(0)].concat()).unwrap(), 2);
        assert_eq!(
            count_acknowledgements(&[answer(0), answer(-1)].concat()).unwrap_err().raw_os_error(),
            Some(1)
        );
        assert_eq!(count_acknowledgements(&answer(0)[..20]).unwrap_err().kind(), io::ErrorKind::InvalidData);
    }

    #[test]
    fn attributes_are_padded() {
        assert_eq!(attribute(1, b"abc").len(), 8);
        assert_eq!(attribute(1, b"abc")[..2], 7_u16.to_ne_bytes());
    }
}
