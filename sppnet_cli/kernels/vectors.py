"""Vector instructions for the window pooling kernel that Numba does not generate by itself, in LLVM's language."""

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba.core import cgutils, types
from numba.extending import intrinsic

LANES = 32  # channels that are worked on at once
SIDE = 16  # of the squares that are transposed
LINE = 64  # bytes of a cache line
_MASK = ir.VectorType(ir.IntType(32), SIDE)


@intrinsic
def union(_typing, source, start, rows, row_step, columns, target, at):  # type: ignore[no-untyped-def]
    """Maximum, lane by lane, of `rows` x `columns` runs of `LANES` numbers of `source`, put at `target[at:]`.

    The first run starts at `start`; those of a row lie side by side, the rows `row_step` numbers apart.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, start, rows, row_step, columns, _, at = args
        run = _pointers(context, builder, signature.args[0], args[0], LANES)
        goal = _pointers(context, builder, signature.args[5], args[5], LANES)
        align = context.get_abi_sizeof(context.get_value_type(source.dtype))
        best = cgutils.alloca_once_value(builder, builder.load(run(start), align=align))
        with cgutils.for_range(builder, rows) as row:
            first = builder.add(start, builder.mul(row.index, row_step))
            with cgutils.for_range(builder, columns) as column:
                place = builder.add(first, builder.mul(column.index, column.index.type(LANES)))
                old, new = builder.load(best), builder.load(run(place), align=align)
                # No NaN and no negative zero comes out of a ReLU; with them it could not be one instruction.
                if isinstance(source.dtype, types.Float):
                    larger = builder.fcmp_ordered(">", old, new, flags=("nnan", "nsz"))
                else:
                    larger = builder.icmp_signed(">", old, new)
                builder.store(builder.select(larger, old, new), best)
        builder.store(builder.load(best), goal(at), align=align)
        return context.get_dummy_value()

    return types.void(source, *(types.intp,) * 4, target, types.intp), generate


@intrinsic
def transpose(_typing, source, start, target, at, step):  # type: ignore[no-untyped-def]
    """Transpose `SIDE` x `SIDE` numbers, from rows `LANES` apart in `source` to rows `step` apart in `target`.

    The rows are written in their order, so that with a step below `SIDE` the later row stays.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, start, _, at, step = args
        run = _pointers(context, builder, signature.args[0], args[0], SIDE)
        goal = _pointers(context, builder, signature.args[2], args[2], SIDE)
        align = context.get_abi_sizeof(context.get_value_type(source.dtype))
        rows = [
            builder.load(run(builder.add(start, start.type(i * LANES))), align=align) for i in range(SIDE)
        ]
        # Four perfect shuffles of the rows, each of which interleaves the first half with the second.
        low, high = (
            ir.Constant(_MASK, [first + i // 2 + i % 2 * SIDE for i in range(SIDE)])
            for first in (0, SIDE // 2)
        )
        for _ in range(4):
            pairs = list(zip(rows[: SIDE // 2], rows[SIDE // 2 :], strict=True))
            rows = [builder.shuffle_vector(a, b, half) for a, b in pairs for half in (low, high)]
        for i, row in enumerate(rows):
            builder.store(row, goal(builder.add(at, builder.mul(step, step.type(i)))), align=align)
        return context.get_dummy_value()

    return types.void(source, types.intp, target, types.intp, types.intp), generate


@intrinsic
def stream(_typing, source, target, at, count):  # type: ignore[no-untyped-def]
    """Copy `count * LANES` numbers to `target[at:]`, which starts a cache line, past the caches.

    What is written thus is not read first.  The lock by which the caller gets Python back makes it seen by all.
    """

    def generate(context: Any, builder: Any, signature: Any, args: Any) -> Any:
        _, _, at, count = args
        run = _pointers(context, builder, signature.args[0], args[0], LANES)
        goal = _pointers(context, builder, signature.args[1], args[1], LANES)
        align = context.get_abi_sizeof(context.get_value_type(source.dtype))
        past_the_caches = builder.module.add_metadata([ir.IntType(32)(1)])
        with cgutils.for_range(builder, count) as loop:
            place = builder.mul(loop.index, loop.index.type(LANES))
            numbers = builder.load(run(place), align=align)
            store = builder.store(numbers, goal(builder.add(at, place)), align=LINE)
            store.set_metadata("nontemporal", past_the_caches)
        return context.get_dummy_value()

    return types.void(source, target, types.intp, types.intp), generate


def _pointers(context: Any, builder: Any, kind: Any, array: Any, lanes: int) -> Callable[[Any], Any]:
    """From an index into a one-dimensional array to the pointer to `lanes` numbers from there on."""
    data = context.make_array(kind)(context, builder, array).data
    pointer = ir.VectorType(context.get_value_type(kind.dtype), lanes).as_pointer()
    return lambda index: builder.bitcast(builder.gep(data, [index]), pointer)
