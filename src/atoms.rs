//! `Atoms`: which images count for the queries of a call.

use crate::bank::Bank;
use crate::error::{Error, Result};

/// Which of a bank's images count: the same ones for all queries of a call, less a few that are left out for one query.
/// An image goes with all of its views.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Atoms {
    /// The images that count, in increasing order; `None` if all of them do.
    images: Option<Vec<u32>>,
    /// Per query the images left out, in increasing order, as positions among those that count; empty if there are none.
    left_out: Vec<Vec<u32>>,
}

impl Atoms {
    /// Every image for every query.
    #[must_use]
    pub const fn all() -> Self {
        Self { images: None, left_out: Vec::new() }
    }

    /// Those of `images` (`None` for all of `bank`), less per query those of `left_out` (empty for none), each in strictly
    /// increasing order.
    ///
    /// Errors: an image that `bank` does not have, an order that does not increase, not as many lists as `queries`, or a
    /// query for which nothing is left.
    pub fn new(bank: &Bank<'_>, queries: usize, images: Option<Vec<u32>>, left_out: Vec<Vec<u32>>) -> Result<Self> {
        if !left_out.is_empty() && left_out.len() != queries {
            let expected = format!("[{queries}], a list per query");
            return Err(Error::Shape { what: "left_out", found: vec![left_out.len()], expected });
        }
        images.iter().try_for_each(|images| check_indices("images", images, bank.len()))?;
        left_out.iter().try_for_each(|images| check_indices("left_out", images, bank.len()))?;
        let position = |image: &u32| match &images {
            None => Some(*image),
            Some(images) => images.binary_search(image).ok().map(|position| position as u32),
        };
        let left_out: Vec<Vec<u32>> =
            left_out.iter().map(|images| images.iter().filter_map(position).collect()).collect();
        let count = images.as_ref().map_or(bank.len(), Vec::len);
        let longest = left_out.iter().map(Vec::len).max().unwrap_or(0);
        if count == longest {
            let query = left_out.iter().position(|images| images.len() == count).unwrap_or(0);
            return Err(Error::NoAtoms { query });
        }
        let left_out = if longest == 0 { Vec::new() } else { left_out };
        Ok(Self { images, left_out })
    }

    /// The images that count for all queries but for [`Atoms::left_out_of`]; `None` if that is every image.
    #[must_use]
    pub fn images(&self) -> Option<&[u32]> {
        self.images.as_deref()
    }

    /// The image at a position among those that count.
    pub(crate) fn image_at(&self, position: usize) -> usize {
        self.images().map_or(position, |images| images[position] as usize)
    }

    /// The images left out for a query, as positions among [`Atoms::images`].
    #[must_use]
    pub fn left_out_of(&self, query: usize) -> &[u32] {
        self.left_out.get(query).map_or(&[], Vec::as_slice)
    }

    /// The same for some of the queries only.
    pub(crate) fn of_queries(&self, queries: &[usize]) -> Self {
        let left_out = if self.left_out.is_empty() { &[][..] } else { queries };
        let left_out = left_out.iter().map(|&query| self.left_out[query].clone()).collect();
        Self { images: self.images.clone(), left_out }
    }

    /// Whether every image counts for every query.
    #[must_use]
    pub fn are_all(&self) -> bool {
        self.images.is_none() && self.left_out.is_empty()
    }
}

/// An error unless these are indices of `len` images in strictly increasing order.
fn check_indices(what: &'static str, indices: &[u32], len: usize) -> Result<()> {
    let wrong = |expected: String, index: u32| Error::ImageIndex { what, index: index as usize, expected };
    if let Some(&index) = indices.iter().find(|&&index| index as usize >= len) {
        return Err(wrong(format!("0 to {}", len - 1), index));
    }
    match indices.windows(2).find(|pair| pair[0] >= pair[1]) {
        Some(pair) => Err(wrong("each larger than the one before it".to_owned(), pair[1])),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use ndarray::Array4;

    #[test]
    fn images_left_out_are_positions_among_those_that_count() {
        let images = Array4::<u8>::zeros((9, 1, 2, 2));
        let bank = Bank::from_u8(images.view()).unwrap();
        let atoms = Atoms::new(&bank, 2, Some(vec![1, 4, 8]), vec![vec![0, 4], vec![]]).unwrap();
        assert_eq!(
            (atoms.images(), atoms.left_out_of(0), atoms.left_out_of(1)),
            (Some(&[1, 4, 8][..]), &[1][..], &[][..])
        );
        assert!(!atoms.are_all());
        assert!(Atoms::new(&bank, 2, None, vec![]).unwrap().are_all());
        assert!(Atoms::new(&bank, 1, None, vec![vec![]]).unwrap().are_all());
    }

    #[test]
    fn what_is_wrong_is_named() {
        let images = Array4::<u8>::zeros((3, 1, 2, 2));
        let bank = Bank::from_u8(images.view()).unwrap();
        let error = |images, left_out| Atoms::new(&bank, 2, images, left_out).unwrap_err();
        assert!(matches!(error(Some(vec![0, 3]), vec![]), Error::ImageIndex { what: "images", index: 3, .. }));
        assert!(matches!(error(Some(vec![1, 1]), vec![]), Error::ImageIndex { index: 1, .. }));
        assert!(matches!(error(None, vec![vec![], vec![7]]), Error::ImageIndex { what: "left_out", index: 7, .. }));
        assert!(matches!(error(None, vec![vec![]]), Error::Shape { what: "left_out", .. }));
        assert_eq!(error(Some(vec![0, 2]), vec![vec![1], vec![0, 2]]), Error::NoAtoms { query: 1 });
        assert_eq!(error(Some(vec![]), vec![]), Error::NoAtoms { query: 0 });
    }
}
