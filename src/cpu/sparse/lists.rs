//! `WeighedLists`: the images that carry weight on each window, and their weights.

/// An image that carries weight on a window.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Atom {
    /// Its position among the images that count.
    pub(crate) position: u32,
    /// Its weight; those of a window sum to one over both sides.
    pub(crate) weight: f64,
}

/// The images that carry weight on every window of a query, of its probe (side 0) and of its flipped probe.
#[derive(Debug, Clone, Default)]
pub(crate) struct WeighedLists {
    /// Per window the base-2 logarithm of the sum of weights that are not normalised.
    pub(crate) log2_sums: Vec<f64>,
    sides: [Side; 2],
}

/// The lists of consecutive windows.
pub(crate) type WindowsOfLists = WeighedLists;

#[derive(Debug, Clone, Default)]
struct Side {
    atoms: Vec<Atom>,
    /// Those of window `k` end before `ends[k]`.
    ends: Vec<usize>,
}

impl WeighedLists {
    /// Adds the next window, whose atoms `of_side` gives for each side that there is.
    pub(super) fn push<I: Iterator<Item = Atom>>(&mut self, log2_sum: f64, of_side: impl Fn(usize) -> Option<I>) {
        self.log2_sums.push(log2_sum);
        for (side, lists) in self.sides.iter_mut().enumerate() {
            lists.atoms.extend(of_side(side).into_iter().flatten());
            lists.ends.push(lists.atoms.len());
        }
    }

    /// The lists of one of several ranks, of whose weights the atoms have a share in every window: its base-2 logarithm.
    pub(crate) fn shared(&self, log2_shares: &[f64]) -> Self {
        let mut shared = self.clone();
        shared.log2_sums.iter_mut().zip(log2_shares).for_each(|(sum, share)| *sum -= share);
        for Side { atoms, ends } in &mut shared.sides {
            let mut start = 0;
            for (&end, share) in ends.iter().zip(log2_shares) {
                atoms[start..end].iter_mut().for_each(|atom| atom.weight *= share.exp2());
                start = end;
            }
        }
        shared
    }

    /// The lists of consecutive parts of the windows, in order, as one.
    pub(super) fn joined(parts: impl Iterator<Item = Self>) -> Self {
        let mut all = Self::default();
        for part in parts {
            all.log2_sums.extend(part.log2_sums);
            for (all, part) in all.sides.iter_mut().zip(part.sides) {
                let before = all.atoms.len();
                all.ends.extend(part.ends.iter().map(|end| before + end));
                all.atoms.extend(part.atoms);
            }
        }
        all
    }

    /// The atoms of a side on window `k`, as the query sees it.
    pub(crate) fn of(&self, side: usize, k: usize) -> &[Atom] {
        let Side { atoms, ends } = &self.sides[side];
        &atoms[if k == 0 { 0 } else { ends[k - 1] }..ends[k]]
    }

    /// Atoms on all windows.
    pub(crate) fn len(&self) -> usize {
        self.sides.iter().map(|side| side.atoms.len()).sum()
    }
}
