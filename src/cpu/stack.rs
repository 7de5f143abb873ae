//! `Stack`: some pixels of sixteen images, an image a lane, for the energies of many probes on the full window: with the
//! pixel of sixteen images in registers and a value of each probe spread over the lanes, they are a matrix product, which
//! the processor does at its peak. (Dot products, with pixels in the lanes, stop at two thirds of it.)
//!
//! Sums are those of [`super::lone`], which has pixels in the lanes: every sixteenth pixel is summed up by itself, then the
//! sixteen sums are added as a tree. So the bits do not depend on how many probes there are.

use std::ops::Range;

use super::isa::{Isa, dispatched};
use super::simd::{LANES, Lanes, Vector};
use super::tile::{Pixel, Place, transpose};

/// Probes whose sums are in flight together: twelve or eight registers of AVX2.
const SIX: usize = 6;
const FOUR: usize = 4;

/// Values of four or six probes of one form, or fewer and zeros, as the kernel reads them.
#[derive(Debug)]
pub struct Block {
    /// `[part][lane][vector][probe]`.
    values: Vec<f32>,
    /// The probes, of those the block was made from.
    probes: Range<usize>,
    width: usize,
    expanded: bool,
}

impl Block {
    /// Blocks of all `probes`, values `[vector]` and whether their form is the expanded one, cut at `parts`.
    #[must_use]
    pub fn all(probes: &[(&[Lanes], bool)], parts: &[Range<usize>]) -> Vec<Self> {
        let mut blocks = Vec::new();
        let mut start = 0;
        for alike in probes.chunk_by(|(_, a), (_, b)| a == b) {
            let end = start + alike.len();
            while start < end {
                let width = if matches!(end - start, 1..=FOUR | 7 | 8) { FOUR } else { SIX };
                let block = start..end.min(start + width);
                blocks.push(Self::new(&probes[block.clone()], block.clone(), width, parts));
                start = block.end;
            }
        }
        blocks
    }

    fn new(probes: &[(&[Lanes], bool)], range: Range<usize>, width: usize, parts: &[Range<usize>]) -> Self {
        let count = parts.last().map_or(0, |part| part.end);
        let mut values = vec![0.0; count * LANES * width];
        for part in parts {
            let values = &mut values[part.start * LANES * width..part.end * LANES * width];
            for (q, (vectors, _)) in probes.iter().enumerate() {
                for (v, lanes) in vectors[part.clone()].iter().enumerate() {
                    for (lane, &value) in lanes.0.iter().enumerate() {
                        values[(lane * part.len() + v) * width + q] = value;
                    }
                }
            }
        }
        Self { values, probes: range, width, expanded: probes[0].1 }
    }
}

/// A part of up to sixteen images.
#[derive(Debug)]
pub struct Stack<P: Pixel> {
    /// The pixels, less the centre of their range, `[vector][lane of the vector][image]`; zero beyond images.
    pixels: Vec<P::Lanes>,
    /// Squares of every sixteenth pixel, summed up, `[lane of the vector][image]`.
    squares: [Lanes; LANES],
    /// Vectors in use.
    vectors: Range<usize>,
    /// Working space: the sixteen sums of each probe.
    sums: [[Lanes; LANES]; SIX],
}

impl<P: Pixel> Default for Stack<P> {
    fn default() -> Self {
        Self { pixels: Vec::new(), squares: [Lanes::ZERO; LANES], vectors: 0..0, sums: [[Lanes::ZERO; LANES]; SIX] }
    }
}

impl<P: Pixel> Stack<P> {
    /// Fills the stack with `vectors` of up to sixteen images laid one after the other.
    pub fn load(&mut self, isa: Isa, images: &[P], image_len: usize, vectors: Range<usize>) {
        let (start, end) = (vectors.start * LANES, image_len.min(vectors.end * LANES));
        let mut rows: [&[P]; LANES] = [&[]; LANES];
        let count = images.len() / image_len;
        for (row, image) in rows.iter_mut().zip(images.chunks_exact(image_len)) {
            *row = &image[start..end];
        }
        self.pixels.resize(vectors.len() * LANES, P::Lanes::ZERO);
        let (pixels, beyond) = self.pixels.split_at_mut(end - start);
        transpose(isa, &rows[..count], 0, pixels);
        beyond.fill(P::Lanes::ZERO);
        self.vectors = vectors;
        square(isa, self);
    }

    /// Adds to `energies` `[probe]` of all probes the energies of a block's probes.
    pub fn add(&mut self, isa: Isa, block: &Block, energies: &mut [Lanes]) {
        let values = &block.values[self.vectors.start * LANES * block.width..self.vectors.end * LANES * block.width];
        add(isa, self, values, block.width, block.expanded, &mut energies[block.probes.clone()]);
    }
}

dispatched! {
    fn square<P: Pixel>(stack: &mut Stack<P>) = square_body
}

#[inline(always)]
fn square_body<V: Vector, P: Pixel>(stack: &mut Stack<P>) {
    let rows = stack.pixels.as_chunks::<LANES>().0;
    for (j, square) in stack.squares.iter_mut().enumerate() {
        let mut sum = V::splat(0.0);
        for row in rows {
            let a = P::centred::<V>(&row[j]);
            sum = a.mul_add(a, sum);
        }
        sum.store(square);
    }
}

dispatched! {
    fn add<P: Pixel>(
        stack: &mut Stack<P>,
        values: &[f32],
        width: usize,
        expanded: bool,
        energies: &mut [Lanes],
    ) = add_body
}

#[inline(always)]
fn add_body<V: Vector, P: Pixel>(
    stack: &mut Stack<P>,
    values: &[f32],
    width: usize,
    expanded: bool,
    energies: &mut [Lanes],
) {
    match (width == SIX, expanded) {
        (true, true) => add_block::<V, P, SIX, true>(stack, values, energies),
        (true, false) => add_block::<V, P, SIX, false>(stack, values, energies),
        (false, true) => add_block::<V, P, FOUR, true>(stack, values, energies),
        (false, false) => add_block::<V, P, FOUR, false>(stack, values, energies),
    }
}

#[inline(always)]
fn add_block<V: Vector, P: Pixel, const Q: usize, const EXPANDED: bool>(
    stack: &mut Stack<P>,
    values: &[f32],
    energies: &mut [Lanes],
) {
    let Stack { pixels, squares, sums, .. } = stack;
    let (rows, values) = (pixels.as_chunks::<LANES>().0, values.as_chunks::<Q>().0);
    for j in 0..LANES {
        let values = &values[j * rows.len()..][..rows.len()];
        let mut lanes = [V::splat(0.0); Q];
        for k in 0..rows.len() {
            let a: V = P::centred(&rows[k][j]);
            for q in 0..Q {
                let z = V::splat(values[k][q]);
                let (factor, other) = if EXPANDED { (a, z) } else { (a.sub(z), a.sub(z)) };
                lanes[q] = factor.mul_add(other, lanes[q]);
            }
        }
        for q in 0..Q {
            let sum = if EXPANDED { lanes[q].add(V::load(&squares[j])) } else { lanes[q] };
            sum.store(&mut sums[q][j]);
        }
    }
    for (sums, energy) in sums.iter_mut().zip(energies) {
        V::load(energy).add(tree::<V>(sums)).store(energy);
    }
}

/// The sum of sixteen, in the order of [`Vector::sum`].
#[inline(always)]
fn tree<V: Vector>(sums: &mut [Lanes; LANES]) -> V {
    let mut half = LANES / 2;
    while half > 0 {
        for i in 0..half {
            V::load(&sums[i]).add(V::load(&sums[i + half])).store(&mut sums[i]);
        }
        half /= 2;
    }
    V::load(&sums[0])
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::cpu::lone;
    use crate::cpu::panel::{Panel, vectors};
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn energies_are_exact_and_those_of_lone_probes(
            image_len in 1_usize..1200, images in 1_usize..=LANES, probes in 1_usize..15, expanded in 0_usize..15,
        ) {
            let bytes: Vec<u8> = (0..images * image_len).map(|i| (i * 37 % 251) as u8).collect();
            let value = |q: usize, p: usize| if p < image_len { (p * (31 + q) % 1009) as f32 / 7.0 - 70.0 } else { 0.0 };
            let lanes = |q: usize, v: usize| Lanes(std::array::from_fn(|i| value(q, v * LANES + i)));
            let values: Vec<Vec<Lanes>> =
                (0..probes).map(|q| (0..vectors(image_len)).map(|v| lanes(q, v)).collect()).collect();
            let all: Vec<(&[Lanes], bool)> =
                values.iter().enumerate().map(|(q, v)| (v.as_slice(), q < expanded)).collect();
            let parts: Vec<_> = Panel::parts(image_len).collect();
            let blocks = Block::all(&all, &parts);
            for isa in Isa::available() {
                let mut energies = vec![Lanes::ZERO; probes];
                let mut stack = Stack::default();
                for part in &parts {
                    stack.load(isa, &bytes, image_len, part.clone());
                    for block in &blocks {
                        stack.add(isa, block, &mut energies);
                    }
                }
                for (q, &(values, expanded)) in all.iter().enumerate() {
                    let mut alone = vec![0.0; images];
                    lone::energies(isa, &bytes, image_len, values, expanded, &mut alone);
                    prop_assert_eq!(&energies[q].0[..images], &alone[..]);
                    for n in 0..images {
                        let term = |p: usize| {
                            let (a, z) = (bytes[n * image_len + p].number(), f64::from(value(q, p)));
                            if expanded { a * a + a * z } else { (a - z).powi(2) }
                        };
                        let exact: f64 = (0..image_len).map(term).sum();
                        let size: f64 = (0..image_len).map(|p| term(p).abs()).sum();
                        prop_assert!((f64::from(energies[q].0[n]) - exact).abs() <= 1e-6 * size);
                    }
                }
            }
        }
    }
}
