//! Sums of every `side` neighbouring values, along a row and down the rows, without any subtraction.
//!
//! Long windows use the block method of van Herk and Gil & Werman: cut the line into blocks of `side`; every window is
//! the end of one block plus the start of the next, so three additions a window do, whatever the side. A running
//! add-and-subtract would cost two, but its absolute error is divided by 2 sigma^2 later.

use super::lanes::Lanes;

/// Up to this side the values of a window are simply added.
const SHORT: usize = 4;

/// `out[i] = row[i] + .. + row[i + side - 1]` for every window that fits; `tails` is working space as long as the row.
#[inline(always)]
pub fn slide_row(row: &[Lanes], side: usize, tails: &mut [Lanes], out: &mut [Lanes]) {
    let count = row.len() + 1 - side;
    if side <= SHORT {
        for (i, o) in out[..count].iter_mut().enumerate() {
            let mut sum = row[i];
            for &value in &row[i + 1..i + side] {
                sum += value;
            }
            *o = sum;
        }
        return;
    }
    for start in (0..count).step_by(side) {
        let mut tail = row[start + side - 1];
        tails[start + side - 1] = tail;
        for i in (start..start + side - 1).rev() {
            tail += row[i];
            tails[i] = tail;
        }
        out[start] = tail;
        let mut head = Lanes::ZERO;
        for i in start + 1..count.min(start + side) {
            head += row[i + side - 1];
            out[i] = tails[i] + head;
        }
    }
}

/// Sums of `side` neighbouring rows, as rows arrive from the top.
#[derive(Debug, Default)]
pub struct RowSlider {
    /// The rows of the block being filled, and behind them the block tails of the block before.
    ring: Vec<Lanes>,
    /// Sum of the rows of the current block.
    head: Vec<Lanes>,
    side: usize,
    columns: usize,
    seen: usize,
}

impl RowSlider {
    /// Starts over with windows of `side` rows of `columns` values.
    pub fn start(&mut self, side: usize, columns: usize) {
        (self.side, self.columns, self.seen) = (side, columns, 0);
        self.ring.resize(self.ring.len().max(side * columns), Lanes::ZERO);
        self.head.resize(self.head.len().max(columns), Lanes::ZERO);
    }

    /// Takes the next row (`None` is a row of zeros); once `side` rows were seen, writes the sum of the last `side` rows.
    #[inline(always)]
    pub fn push(&mut self, row: Option<&[Lanes]>, out: &mut [Lanes]) -> bool {
        let (side, columns, slot) = (self.side, self.columns, self.seen % self.side);
        self.seen += 1;
        let complete = self.seen >= side;
        if side > SHORT {
            self.grow_head(row, slot == 0);
            if complete && slot + 1 < side {
                let tails = &self.ring[(slot + 1) * columns..(slot + 2) * columns];
                for ((o, &tail), &head) in out[..columns].iter_mut().zip(tails).zip(&self.head) {
                    *o = tail + head;
                }
            } else if complete {
                out[..columns].copy_from_slice(&self.head[..columns]);
            }
        }
        self.keep(row, slot);
        if side <= SHORT && complete {
            out[..columns].copy_from_slice(&self.ring[..columns]);
            for kept in self.ring[columns..side * columns].chunks_exact(columns) {
                for (o, &k) in out[..columns].iter_mut().zip(kept) {
                    *o += k;
                }
            }
        }
        if side > SHORT && slot + 1 == side {
            self.turn_into_tails();
        }
        complete
    }

    #[inline(always)]
    fn grow_head(&mut self, row: Option<&[Lanes]>, first: bool) {
        let head = &mut self.head[..self.columns];
        match row {
            Some(row) if first => head.copy_from_slice(&row[..self.columns]),
            Some(row) => head.iter_mut().zip(row).for_each(|(h, &r)| *h += r),
            None if first => head.fill(Lanes::ZERO),
            None => {}
        }
    }

    #[inline(always)]
    fn keep(&mut self, row: Option<&[Lanes]>, slot: usize) {
        let kept = &mut self.ring[slot * self.columns..(slot + 1) * self.columns];
        match row {
            Some(row) => kept.copy_from_slice(&row[..self.columns]),
            None => kept.fill(Lanes::ZERO),
        }
    }

    #[inline(always)]
    fn turn_into_tails(&mut self) {
        for slot in (0..self.side - 1).rev() {
            let (upper, lower) = self.ring.split_at_mut((slot + 1) * self.columns);
            for (u, &l) in upper[slot * self.columns..].iter_mut().zip(&*lower) {
                *u += l;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn lanes(values: &[f32]) -> Vec<Lanes> {
        values.iter().map(|&v| Lanes::splat(v)).collect()
    }

    proptest! {
        // Small integers, so that every order of addition is exact.
        #[test]
        fn rows_slide(values in proptest::collection::vec(-8_i8..8, 1..70), side in 1_usize..40) {
            prop_assume!(side <= values.len());
            let values: Vec<f32> = values.iter().map(|&v| f32::from(v)).collect();
            let (mut tails, mut out) = (lanes(&values), lanes(&values));
            slide_row(&lanes(&values), side, &mut tails, &mut out);
            for (i, window) in values.windows(side).enumerate() {
                prop_assert_eq!(out[i].0[5], window.iter().sum::<f32>());
            }
        }

        #[test]
        fn columns_slide(
            rows in proptest::collection::vec(proptest::option::of(proptest::array::uniform3(-8_i8..8)), 1..60),
            side in 1_usize..30,
        ) {
            let mut slider = RowSlider::default();
            for _ in 0..2 {
                slider.start(side, 3);
                let mut out = vec![Lanes::ZERO; 3];
                for y in 0..rows.len() {
                    let row = rows[y].map(|r| lanes(&r.map(f32::from)));
                    prop_assert_eq!(slider.push(row.as_deref(), &mut out), y + 1 >= side);
                    for x in 0..3 {
                        if y + 1 >= side {
                            let exact: f32 = rows[y + 1 - side..=y].iter().flatten().map(|r| f32::from(r[x])).sum();
                            prop_assert_eq!(out[x].0[9], exact);
                        }
                    }
                }
            }
        }
    }
}
