//! `BlockProducts`: sums over images of products of the values of two blocks of panels.

use super::panels::{Panels, SLAB_PAIRS};
use crate::simd::{I32x16, Kernel, LANES, Vector, VectorI32};

/// Panels of a block: those of two blocks on a slab, and their sums, fit the second-level cache.
pub(super) const BLOCK_PANELS: usize = 8;

/// Rows of products whose sums are in registers together.
const ROWS: usize = 4;

/// Adds the products of the panels from the two of `of` on, as many as a block has, to `sums` `[row][column]`. Of a block on the
/// diagonal the panels below it are left out.
pub(super) struct BlockProducts<'a> {
    pub(super) panels: &'a Panels,
    pub(super) of: [usize; 2],
    pub(super) sums: &'a mut [i64],
}

impl Kernel for BlockProducts<'_> {
    type Output = ();

    #[inline(always)]
    fn run<V: Vector>(self) {
        let Self { panels, of: [rows, columns], sums } = self;
        let end = |first: usize| panels.count().min(first + BLOCK_PANELS);
        // [panel of rows][row][panel of columns]: sums of some thousand images fit 31 bits.
        let mut products = vec![[[I32x16::ZERO; BLOCK_PANELS]; LANES]; BLOCK_PANELS];
        for slab in panels.slabs() {
            for column in columns..end(columns) {
                for row in rows..end(rows).min(column + 1) {
                    let (left, right) = (panel(slab, row), panel(slab, column));
                    add_products::<V>(left, right, &mut products[row - rows], column - columns);
                }
            }
        }
        let vectors = products.as_flattened().as_flattened();
        for (sums, products) in sums.as_chunks_mut::<LANES>().0.iter_mut().zip(vectors) {
            for lane in 0..LANES {
                sums[lane] += i64::from(products.0[lane]);
            }
        }
    }
}

#[inline(always)]
fn panel(slab: &[I32x16], index: usize) -> &[I32x16] {
    &slab[index * SLAB_PAIRS..][..SLAB_PAIRS]
}

/// Adds the products of two panels of a slab to those of a column of panels.
#[inline(always)]
fn add_products<V: Vector>(
    left: &[I32x16],
    right: &[I32x16],
    products: &mut [[I32x16; BLOCK_PANELS]; LANES],
    column: usize,
) {
    for (part, rows) in products.as_chunks_mut::<ROWS>().0.iter_mut().enumerate() {
        let mut sums = [V::I32::load(&I32x16::ZERO); ROWS];
        for pair in 0..SLAB_PAIRS {
            let values = V::I32::load(&right[pair]);
            let factors = &left[pair].0.as_chunks::<ROWS>().0[part];
            for row in 0..ROWS {
                sums[row] = sums[row].add(V::I32::splat(factors[row]).sum_of_products(values));
            }
        }
        for row in 0..ROWS {
            let before = V::I32::load(&rows[row][column]);
            before.add(sums[row]).store(&mut rows[row][column]);
        }
    }
}
