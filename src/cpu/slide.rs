//! Sums of every `side` neighbouring values, along a row and down the rows, without any subtraction.
//!
//! Long windows use the block method of van Herk and Gil & Werman: cut the line into blocks of `side`; every window is
//! the end of one block plus the start of the next, so three additions a window do, whatever the side. A running
//! add-and-subtract would cost two, but its absolute error is divided by 2 sigma^2 later.

use super::simd::{Lanes, Vector};

/// The last `BEFORE` values of a line, in registers.
#[derive(Clone, Copy)]
pub struct Roll<V, const BEFORE: usize>([V; BEFORE]);

impl<V: Vector, const BEFORE: usize> Roll<V, BEFORE> {
    /// Before the first value; missing values count as zero.
    #[inline(always)]
    #[must_use]
    pub fn start() -> Self {
        Self([V::splat(0.0); BEFORE])
    }

    /// Takes the next value and returns its sum with the `BEFORE` values before it.
    #[inline(always)]
    pub fn push(&mut self, value: V) -> V {
        let sum = self.sum(value);
        self.skip(value);
        sum
    }

    /// Takes the next value where no sum is wanted.
    #[inline(always)]
    pub fn skip(&mut self, value: V) {
        for i in 1..BEFORE {
            self.0[i - 1] = self.0[i];
        }
        if BEFORE > 0 {
            self.0[BEFORE - 1] = value;
        }
    }

    #[inline(always)]
    fn sum(&self, value: V) -> V {
        if BEFORE == 0 {
            return value;
        }
        let mut sum = self.0[0];
        for i in 1..BEFORE {
            sum = sum.add(self.0[i]);
        }
        sum.add(value)
    }
}

/// `out[i] = row[i] + .. + row[i + side - 1]` for every window that fits; `tails` is working space as long as the row.
#[inline(always)]
pub fn slide_row<V: Vector>(row: &[Lanes], side: usize, tails: &mut [Lanes], out: &mut [Lanes]) {
    let count = row.len() + 1 - side;
    let tails = &mut tails[..side];
    for start in (0..count).step_by(side) {
        let windows = side.min(count - start);
        let mut tail = V::splat(0.0);
        for (kept, value) in tails.iter_mut().zip(&row[start..start + side]).rev() {
            tail = tail.add(V::load(value));
            tail.store(kept);
        }
        let out = &mut out[start..start + windows];
        out[0] = tails[0];
        let mut head = V::splat(0.0);
        let next = &row[start + side..start + side + windows - 1];
        for ((o, kept), value) in out[1..].iter_mut().zip(&tails[1..windows]).zip(next) {
            head = head.add(V::load(value));
            head.add(V::load(kept)).store(o);
        }
    }
}

/// Sums of `side` neighbouring rows, as rows arrive from the top: fill [`RowSlider::slot`], then call `advance`.
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

    /// Where the next row belongs. In a long window, the tails that lie there are no longer needed.
    #[inline(always)]
    pub fn slot(&mut self) -> &mut [Lanes] {
        let slot = self.seen % self.side;
        &mut self.ring[slot * self.columns..(slot + 1) * self.columns]
    }

    /// Counts the row in the slot; once `side` rows were seen, writes the sum of the last `side` rows.
    #[inline(always)]
    pub fn advance<V: Vector>(&mut self, out: &mut [Lanes]) -> bool {
        let complete = self.seen + 1 >= self.side;
        self.add_to_head::<V>();
        self.finish::<V>(&mut out[..if complete { self.columns } else { 0 }]);
        complete
    }

    /// Counts the row in the slot and writes the sum of the last `side` rows, or of all where there are fewer.
    #[inline(always)]
    pub fn advance_partly<V: Vector>(&mut self, out: &mut [Lanes]) {
        self.add_to_head::<V>();
        if self.seen + 1 < self.side {
            out.copy_from_slice(&self.head[..self.columns]);
            self.finish::<V>(&mut []);
        } else {
            self.finish::<V>(out);
        }
    }

    /// The same for a row of zeros.
    #[inline(always)]
    pub fn advance_empty<V: Vector>(&mut self, out: &mut [Lanes]) {
        self.slot().fill(Lanes::ZERO);
        if self.seen.is_multiple_of(self.side) {
            self.head[..self.columns].fill(Lanes::ZERO);
        }
        if self.seen + 1 < self.side {
            out.copy_from_slice(&self.head[..self.columns]);
            self.finish::<V>(&mut []);
        } else {
            self.finish::<V>(out);
        }
    }

    /// Adds the row in the slot to the sum of its block.
    #[inline(always)]
    fn add_to_head<V: Vector>(&mut self) {
        let (slot, columns) = (self.seen % self.side, self.columns);
        let row = &self.ring[slot * columns..(slot + 1) * columns];
        if slot == 0 {
            self.head[..columns].copy_from_slice(row);
        } else {
            add_row::<V>(&mut self.head, row);
        }
    }

    /// Writes head plus tail; at the end of a block its rows become tails.
    #[inline(always)]
    fn finish<V: Vector>(&mut self, out: &mut [Lanes]) {
        let (side, columns, slot) = (self.side, self.columns, self.seen % self.side);
        self.seen += 1;
        if slot + 1 == side {
            out.copy_from_slice(&self.head[..out.len()]);
            for slot in (0..side - 1).rev() {
                let (upper, lower) = self.ring.split_at_mut((slot + 1) * columns);
                add_row::<V>(&mut upper[slot * columns..], &lower[..columns]);
            }
        } else {
            let tails = &self.ring[(slot + 1) * columns..];
            for ((o, tail), head) in out.iter_mut().zip(tails).zip(&self.head) {
                V::load(tail).add(V::load(head)).store(o);
            }
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
            let mut roll = Roll::<Portable<false>, 2>::start();
            for (i, window) in values.windows(side).enumerate() {
                prop_assert_eq!(out[i].0[5], window.iter().sum::<f32>());
                let mut rolled = Lanes::ZERO;
                roll.push(Portable::splat(values[i])).store(&mut rolled);
                prop_assert_eq!(rolled.0[3], values[i.saturating_sub(2)..=i].iter().sum::<f32>());
            }
        }

        #[test]
        fn columns_slide(
            rows in proptest::collection::vec(proptest::array::uniform3(-8_i8..8), 1..60),
            side in 1_usize..30,
        ) {
            let mut slider = RowSlider::default();
            for _ in 0..2 {
                slider.start(side, 3);
                let mut out = vec![Lanes::ZERO; 3];
                for y in 0..rows.len() {
                    slider.slot().copy_from_slice(&lanes(&rows[y].map(f32::from)));
                    prop_assert_eq!(slider.advance::<Portable<false>>(&mut out), y + 1 >= side);
                    for x in 0..3 {
                        if y + 1 >= side {
                            let exact: f32 = rows[y + 1 - side..=y].iter().map(|r| f32::from(r[x])).sum();
                            prop_assert_eq!(out[x].0[9], exact);
                        }
                    }
                }
            }
        }

        #[test]
        fn columns_slide_over_the_border(
            rows in proptest::collection::vec(proptest::option::of(proptest::array::uniform2(-8_i8..8)), 1..40),
            side in 1_usize..30,
        ) {
            let (mut slider, mut out) = (RowSlider::default(), vec![Lanes::ZERO; 2]);
            slider.start(side, 2);
            for y in 0..rows.len() {
                match rows[y] {
                    None => slider.advance_empty::<Portable<false>>(&mut out),
                    Some(row) => {
                        slider.slot().copy_from_slice(&lanes(&row.map(f32::from)));
                        slider.advance_partly::<Portable<false>>(&mut out);
                    }
                }
                for x in 0..2 {
                    let last = rows[(y + 1).saturating_sub(side)..=y].iter().flatten();
                    prop_assert_eq!(out[x].0[3], last.map(|r| f32::from(r[x])).sum::<f32>());
                }
            }
        }
    }
}
