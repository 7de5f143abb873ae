//! Equal chunks of a slice, as `chunks_exact` gives them, but without its division: where rows have thirty windows, a dozen
//! divisions per row take measurable time.

/// The chunks of `count` elements; a rest is left out.
pub(crate) fn exact_chunks<T>(slice: &[T], count: usize) -> impl Iterator<Item = &[T]> {
    debug_assert!(count > 0, "chunks are not empty");
    let mut rest = slice;
    std::iter::from_fn(move || {
        let (chunk, later) = rest.split_at_checked(count)?;
        rest = later;
        Some(chunk)
    })
}

/// The same, to be written to.
pub(crate) fn exact_chunks_mut<T>(slice: &mut [T], count: usize) -> impl Iterator<Item = &mut [T]> {
    debug_assert!(count > 0, "chunks are not empty");
    let mut rest = slice;
    std::iter::from_fn(move || {
        let (chunk, later) = std::mem::take(&mut rest).split_at_mut_checked(count)?;
        rest = later;
        Some(chunk)
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chunks_are_those_of_chunks_exact() {
        let mut values: Vec<usize> = (0..11).collect();
        assert!(exact_chunks(&values, 3).eq(values.clone().chunks_exact(3)));
        exact_chunks_mut(&mut values, 4).for_each(|chunk| chunk[0] = 99);
        assert_eq!(values, [99, 1, 2, 3, 99, 5, 6, 7, 8, 9, 10]);
    }
}
