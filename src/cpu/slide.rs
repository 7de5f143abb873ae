//! Sums of every `side` neighbouring values, along a row and down the rows, without any subtraction.
//!
//! Long windows use the block method of van Herk and Gil & Werman: cut the line into blocks of `side`; every window is
//! the end of one block plus the start of the next, so three additions a window do, whatever the side. A running
//! add-and-subtract would cost two, but its absolute error is divided by 2 sigma^2 later.

use super::simd::{Lanes, Vector};

/// Up to this side the values of a window are simply added.
const SHORT: usize = 4;

/// `out[i] = row[i] + .. + row[i + side - 1]` for every window that fits; `tails` is working space as long as the row.
#[inline(always)]
pub fn slide_row<V: Vector>(row: &[Lanes], side: usize, tails: &mut [Lanes], out: &mut [Lanes]) {
    let count = row.len() + 1 - side;
    if side <= SHORT {
        for (values, o) in row.windows(side).zip(out) {
            values[1..].iter().fold(V::load(&values[0]), |sum, value| sum.add(V::load(value))).store(o);
        }
        return;
    }
    for start in (0..count).step_by(side) {
        let mut tail = V::load(&row[start + side - 1]);
        for i in (start..start + side - 1).rev() {
            tail.store(&mut tails[i + 1]);
            tail = tail.add(V::load(&row[i]));
        }
        tail.store(&mut out[start]);
        let mut head = V::splat(0.0);
        for i in start + 1..count.min(start + side) {
            head = head.add(V::load(&row[i + side - 1]));
            head.add(V::load(&tails[i])).store(&mut out[i]);
        }
    }
}

/// `sums[i] += row[i]`.
#[inline(always)]
fn add_row<V: Vector>(sums: &mut [Lanes], row: &[Lanes]) {
    for (sum, value) in sums.iter_mut().zip(row) {
        V::load(sum).add(V::load(value)).store(sum);
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
    pub fn push<V: Vector>(&mut self, row: Option<&[Lanes]>, out: &mut [Lanes]) -> bool {
        let (side, columns, slot) = (self.side, self.columns, self.seen % self.side);
        self.seen += 1;
        let complete = self.seen >= side;
        if side <= SHORT {
            self.keep(row, slot);
            if complete {
                self.sum_of_ring::<V>(&mut out[..columns]);
            }
            return complete;
        }
        self.grow_head::<V>(row, slot == 0);
        if complete && slot + 1 == side {
            out[..columns].copy_from_slice(&self.head[..columns]);
        } else if complete {
            let tails = &self.ring[(slot + 1) * columns..(slot + 2) * columns];
            for ((o, tail), head) in out.iter_mut().zip(tails).zip(&self.head) {
                V::load(tail).add(V::load(head)).store(o);
            }
        }
        self.keep(row, slot);
        if slot + 1 == side {
            self.turn_into_tails::<V>();
        }
        complete
    }

    #[inline(always)]
    fn sum_of_ring<V: Vector>(&self, out: &mut [Lanes]) {
        let columns = out.len();
        for (x, o) in out.iter_mut().enumerate() {
            let mut rows = self.ring[x..self.side * columns].iter().step_by(columns).map(V::load);
            let first = rows.next().unwrap_or(V::splat(0.0));
            rows.fold(first, V::add).store(o);
        }
    }

    #[inline(always)]
    fn grow_head<V: Vector>(&mut self, row: Option<&[Lanes]>, first: bool) {
        let head = &mut self.head[..self.columns];
        match row {
            Some(row) if first => head.copy_from_slice(&row[..self.columns]),
            Some(row) => add_row::<V>(head, row),
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
    fn turn_into_tails<V: Vector>(&mut self) {
        for slot in (0..self.side - 1).rev() {
            let (upper, lower) = self.ring.split_at_mut((slot + 1) * self.columns);
            add_row::<V>(&mut upper[slot * self.columns..], lower);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::simd::Portable;
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
            slide_row::<Portable<false>>(&lanes(&values), side, &mut tails, &mut out);
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
                    prop_assert_eq!(slider.push::<Portable<false>>(row.as_deref(), &mut out), y + 1 >= side);
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
