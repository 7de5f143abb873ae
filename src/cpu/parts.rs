//! Equal parts of a slice, one after the other, as `chunks_exact` gives them, but without its division: between rows of
//! thirty windows a dozen divisions are felt.

/// The parts of `count` elements; a rest is left out.
pub(super) fn parts<T>(slice: &[T], count: usize) -> impl Iterator<Item = &[T]> {
    debug_assert!(count > 0, "parts are not empty");
    let mut rest = slice;
    std::iter::from_fn(move || {
        let (part, later) = rest.split_at_checked(count)?;
        rest = later;
        Some(part)
    })
}

/// The same, to be written to.
pub(super) fn parts_mut<T>(slice: &mut [T], count: usize) -> impl Iterator<Item = &mut [T]> {
    debug_assert!(count > 0, "parts are not empty");
    let mut rest = slice;
    std::iter::from_fn(move || {
        let (part, later) = std::mem::take(&mut rest).split_at_mut_checked(count)?;
        rest = later;
        Some(part)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn parts_are_those_of_chunks_exact() {
        let mut values: Vec<usize> = (0..11).collect();
        assert!(parts(&values, 3).eq(values.clone().chunks_exact(3)));
        parts_mut(&mut values, 4).for_each(|part| part[0] = 99);
        assert_eq!(values, [99, 1, 2, 3, 99, 5, 6, 7, 8, 9, 10]);
    }
}
