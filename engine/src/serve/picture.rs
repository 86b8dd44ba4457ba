//! Small pictures that decode: PNG written by hand, and base64.

use super::world::mix;

/// Pixels in a row and in a column. The size a request names is not heeded: what a client decodes is beside the point.
const SIDE: u32 = 16;

/// A PNG of 16 × 16 pixels in a colour of its own.
pub(super) fn png(key: u64) -> Vec<u8> {
    let mut png = b"\x89PNG\r\n\x1a\n".to_vec();
    let mut header = Vec::new();
    for side in [SIDE, SIDE] {
        header.extend_from_slice(&side.to_be_bytes());
    }
    // 8 bits, RGB, and the only methods of compression, filtering and interlacing that matter here.
    header.extend_from_slice(&[8, 2, 0, 0, 0]);
    chunk(&mut png, b"IHDR", &header);
    let [red, green, blue, ..] = mix(key).to_le_bytes();
    let mut rows = Vec::new();
    for row in 0..SIDE as u8 {
        rows.push(0); // no filter
        for column in 0..SIDE as u8 {
            rows.extend_from_slice(&[red.wrapping_add(row), green.wrapping_add(column), blue]);
        }
    }
    chunk(&mut png, b"IDAT", &zlib(&rows));
    chunk(&mut png, b"IEND", &[]);
    png
}

fn chunk(out: &mut Vec<u8>, kind: &[u8; 4], data: &[u8]) {
    out.extend_from_slice(&(data.len() as u32).to_be_bytes());
    let start = out.len();
    out.extend_from_slice(kind);
    out.extend_from_slice(data);
    let sum = crc32fast::hash(&out[start..]);
    out.extend_from_slice(&sum.to_be_bytes());
}

/// One stored block (RFC 1951) of up to 65535 bytes in the frame of RFC 1950.
fn zlib(data: &[u8]) -> Vec<u8> {
    let length = data.len() as u16;
    let mut out = vec![0x78, 0x01, 0x01];
    out.extend_from_slice(&length.to_le_bytes());
    out.extend_from_slice(&(!length).to_le_bytes());
    out.extend_from_slice(data);
    let (a, b) = data.iter().fold((1u32, 0u32), |(a, b), &byte| {
        let a = (a + u32::from(byte)) % 65521;
        (a, (b + a) % 65521)
    });
    out.extend_from_slice(&((b << 16) | a).to_be_bytes());
    out
}

pub(super) use crate::endpoint::encode_base64 as base64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_sums_of_a_known_text() {
        // Adler-32 of "Wikipedia" is 0x11e60398.
        assert!(zlib(b"Wikipedia").ends_with(&[0x11, 0xe6, 0x03, 0x98]));
        let png = png(1);
        assert!(png.starts_with(b"\x89PNG\r\n\x1a\n\0\0\0\rIHDR\0\0\0\x10\0\0\0\x10\x08\x02\0\0\0\x90\x91\x68\x36"));
        assert!(png.ends_with(b"\0\0\0\0IEND\xae\x42\x60\x82"));
    }
}
