//! Numbers of a fixed width, written in place.

/// Fills `slot` with the last digits of `n`, base 16.
pub(super) fn put_hex(slot: &mut [u8], mut n: u64) {
    for digit in slot.iter_mut().rev() {
        *digit = b"0123456789abcdef"[(n & 15) as usize];
        n >>= 4;
    }
}

/// Fills `slot` with the last digits of `n`, base 10.
pub(super) fn put_decimal(slot: &mut [u8], mut n: u64) {
    for digit in slot.iter_mut().rev() {
        *digit = b'0' + (n % 10) as u8;
        n /= 10;
    }
}
