"""Running several coroutines as one."""

import asyncio


async def first(*coroutines):
    """Run all until one returns or raises, cancel the others, and pass on its outcome."""
    outcome = []
    over = asyncio.Event()

    async def guard(work):
        try:
            outcome.append((await work, None))
        except Exception as error:  # noqa: BLE001 - raised below, in the task that waits
            outcome.append((None, error))  # type: ignore[arg-type]  # or (result, None)
        over.set()

    tasks = [asyncio.create_task(guard(work)) for work in coroutines]
    try:
        await over.wait()
    finally:
        for task in tasks:
            task.cancel()
    value, error = outcome[0]
    if error is not None:
        raise error
    return value
