//! `ImagePanel`: some pixels of sixteen images, one image per lane, for the energies of many probes on the full window.
//! A pixel of sixteen images is in registers, and a value of each probe is broadcast to all lanes: the energies are a
//! matrix product, which runs at the peak of the CPU. (Dot products, with pixels in the lanes, reach two thirds of it.)
//!
//! The order of additions is that of [`super::single_query`], which has pixels in the lanes: each lane sums every sixteenth
//! pixel, then the sixteen sums are added as a tree. So the bits do not depend on the number of probes.

use std::ops::Range;

use crate::cpu::dense::residuals::{DIRECT, EXPANDED, PRODUCTS};
use crate::cpu::tile::{Pixel, PixelLanes, transpose};
use crate::simd::{F32x16, Isa, Kernel, LANES, Vector};

/// Probes whose sums are kept in registers together: twelve registers of AVX2, or eight.
const NR_WIDE: usize = 6;
const NR_NARROW: usize = 4;

/// Values of [`NR_WIDE`] or [`NR_NARROW`] probes of one form of the energy, as the kernel reads them; zeros fill it up
/// where there are fewer probes.
#[derive(Debug)]
pub(crate) struct QueryPanel {
    /// `[part][lane][vector][probe]`.
    values: Vec<f32>,
    /// Which probes these are.
    probes: Range<usize>,
    width: usize,
    form: u8,
}

impl QueryPanel {
    /// The panels of all `probes`, each given as its values `[vector]` and the form of its sums, cut at `parts`.
    #[must_use]
    pub(crate) fn all(probes: &[(&[F32x16], u8)], parts: &[Range<usize>]) -> Vec<Self> {
        let mut panels = Vec::new();
        let mut start = 0;
        for alike in probes.chunk_by(|(_, a), (_, b)| a == b) {
            let end = start + alike.len();
            while start < end {
                let width = if matches!(end - start, 1..=NR_NARROW | 7 | 8) { NR_NARROW } else { NR_WIDE };
                let range = start..end.min(start + width);
                panels.push(Self::new(&probes[range.clone()], range.clone(), width, parts));
                start = range.end;
            }
        }
        panels
    }

    fn new(probes: &[(&[F32x16], u8)], range: Range<usize>, width: usize, parts: &[Range<usize>]) -> Self {
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
        Self { values, probes: range, width, form: probes[0].1 }
    }
}

/// A part of up to sixteen images.
#[derive(Debug)]
pub(crate) struct ImagePanel<P: Pixel> {
    /// The pixels, less the centre of their range, `[vector][lane of the vector][image]`; zero beyond images.
    pixels: Vec<P::Packed>,
    /// Squares of every sixteenth pixel, summed up, `[lane of the vector][image]`.
    squares: [F32x16; LANES],
    /// Vectors in use.
    vectors: Range<usize>,
    /// Working space: the sixteen sums of each probe.
    sums: [[F32x16; LANES]; NR_WIDE],
}

impl<P: Pixel> Default for ImagePanel<P> {
    fn default() -> Self {
        Self {
            pixels: Vec::new(),
            squares: [F32x16::ZERO; LANES],
            vectors: 0..0,
            sums: [[F32x16::ZERO; LANES]; NR_WIDE],
        }
    }
}

impl<P: Pixel> ImagePanel<P> {
    /// Fills the panel with `vectors` of up to sixteen images, whose pixels have this centre.
    pub(crate) fn load(&mut self, isa: Isa, images: &[&[P]], centre: f32, image_len: usize, vectors: Range<usize>) {
        let (start, end) = (vectors.start * LANES, image_len.min(vectors.end * LANES));
        let mut rows: [&[P]; LANES] = [&[]; LANES];
        for (row, image) in rows.iter_mut().zip(images) {
            *row = &image[start..end];
        }
        self.pixels.resize(vectors.len() * LANES, P::Packed::ZERO);
        let (pixels, padding) = self.pixels.split_at_mut(end - start);
        transpose(isa, &rows[..images.len()], centre, 0, pixels);
        padding.fill(P::Packed::ZERO);
        self.vectors = vectors;
        isa.run(ColumnSquares { panel: &mut *self });
    }

    /// Adds the energies of the probes of a panel to `energies` `[probe]`, which has an entry for every probe.
    pub(crate) fn add(&mut self, isa: Isa, queries: &QueryPanel, energies: &mut [F32x16]) {
        let QueryPanel { width, form, .. } = *queries;
        let values = &queries.values[self.vectors.start * LANES * width..self.vectors.end * LANES * width];
        let energies = &mut energies[queries.probes.clone()];
        isa.run(AddEnergies { panel: self, values, width, form, energies });
    }
}

struct ColumnSquares<'a, P: Pixel> {
    panel: &'a mut ImagePanel<P>,
}

impl<P: Pixel> Kernel for ColumnSquares<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { panel } = self;
        let rows = panel.pixels.as_chunks::<LANES>().0;
        for (j, square) in panel.squares.iter_mut().enumerate() {
            let mut sum = V::splat(0.0);
            for row in rows {
                let a = P::centred::<V>(&row[j]);
                sum = a.mul_add(a, sum);
            }
            sum.store(square);
        }
    }
}

struct AddEnergies<'a, P: Pixel> {
    panel: &'a mut ImagePanel<P>,
    values: &'a [f32],
    width: usize,
    form: u8,
    energies: &'a mut [F32x16],
}

impl<P: Pixel> Kernel for AddEnergies<'_, P> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { panel, values, width, form, energies } = self;
        match (width == NR_WIDE, form) {
            (true, EXPANDED) => add_panel::<V, P, NR_WIDE, EXPANDED>(panel, values, energies),
            (true, PRODUCTS) => add_panel::<V, P, NR_WIDE, PRODUCTS>(panel, values, energies),
            (true, _) => add_panel::<V, P, NR_WIDE, DIRECT>(panel, values, energies),
            (false, EXPANDED) => add_panel::<V, P, NR_NARROW, EXPANDED>(panel, values, energies),
            (false, PRODUCTS) => add_panel::<V, P, NR_NARROW, PRODUCTS>(panel, values, energies),
            (false, _) => add_panel::<V, P, NR_NARROW, DIRECT>(panel, values, energies),
        }
    }
}

#[inline(always)]
fn add_panel<V: Vector, P: Pixel, const Q: usize, const FORM: u8>(
    panel: &mut ImagePanel<P>,
    values: &[f32],
    energies: &mut [F32x16],
) {
    let ImagePanel { pixels, squares, sums, .. } = panel;
    let (rows, values) = (pixels.as_chunks::<LANES>().0, values.as_chunks::<Q>().0);
    for j in 0..LANES {
        let values = &values[j * rows.len()..][..rows.len()];
        let mut lanes = [V::splat(0.0); Q];
        for k in 0..rows.len() {
            let a: V = P::centred(&rows[k][j]);
            for q in 0..Q {
                let z = V::splat(values[k][q]);
                let (factor, other) = if FORM == DIRECT { (a.sub(z), a.sub(z)) } else { (a, z) };
                lanes[q] = factor.mul_add(other, lanes[q]);
            }
        }
        for q in 0..Q {
            let sum = if FORM == EXPANDED { lanes[q].add(V::load(&squares[j])) } else { lanes[q] };
            sum.store(&mut sums[q][j]);
        }
    }
    for (sums, energy) in sums.iter_mut().zip(energies) {
        V::load(energy).add(tree::<V>(sums)).store(energy);
    }
}

/// The sum of sixteen vectors, in the order of [`Vector::sum`].
#[inline(always)]
fn tree<V: Vector>(sums: &mut [F32x16; LANES]) -> V {
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
    use crate::cpu::full::pixel_panel::{PixelPanel, vectors};
    use crate::cpu::full::single_query::Energies;
    use crate::cpu::images::Images;
    use proptest::prelude::*;

    proptest! {
        #[test]
        fn energies_are_exact_and_those_of_single_queries(
            image_len in 1_usize..1200, images in 1_usize..=LANES, probes in 1_usize..15, expanded in 0_usize..15, products in 0_usize..4,
        ) {
            let bytes: Vec<u8> = (0..images * image_len).map(|i| (i * 37 % 251) as u8).collect();
            let value = |q: usize, p: usize| if p < image_len { (p * (31 + q) % 1009) as f32 / 7.0 - 70.0 } else { 0.0 };
            let lanes = |q: usize, v: usize| F32x16(std::array::from_fn(|i| value(q, v * LANES + i)));
            let values: Vec<Vec<F32x16>> =
                (0..probes).map(|q| (0..vectors(image_len)).map(|v| lanes(q, v)).collect()).collect();
            let form = |q: usize| if q < expanded { EXPANDED } else if q < expanded + products { PRODUCTS } else { DIRECT };
            let all: Vec<(&[F32x16], u8)> = values.iter().enumerate().map(|(q, v)| (v.as_slice(), form(q))).collect();
            let parts: Vec<_> = PixelPanel::parts(image_len).collect();
            let panels = QueryPanel::all(&all, &parts);
            for isa in Isa::available() {
                let mut energies = vec![F32x16::ZERO; probes];
                let mut panel = ImagePanel::default();
                for part in &parts {
                    panel.load(isa, &Images::side_by_side(&bytes, image_len), 127.5, image_len, part.clone());
                    for queries in &panels {
                        panel.add(isa, queries, &mut energies);
                    }
                }
                for (q, &(values, form)) in all.iter().enumerate() {
                    let mut alone = vec![0.0; images];
                    let rows = &Images::side_by_side(&bytes, image_len)[..];
                    isa.run(Energies { images: rows, centre: 127.5, values, form, out: &mut alone });
                    prop_assert_eq!(&energies[q].0[..images], &alone[..]);
                    for n in 0..images {
                        let term = |p: usize| {
                            let (a, z) = (bytes[n * image_len + p].number(127.5), f64::from(value(q, p)));
                            match form {
                                EXPANDED => a * a + a * z,
                                PRODUCTS => a * z,
                                _ => (a - z).powi(2),
                            }
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
