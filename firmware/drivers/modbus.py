"""Modbus RTU, as a master that reads input registers.

Modbus Organization, MODBUS over Serial Line V1.02: 2.5.1 RTU frames, 6.2.2 CRC; MODBUS
Application Protocol V1.1b3: 6.4 function 4, 7 exceptions.
"""

from time import sleep_ms, ticks_diff, ticks_ms

from fogline.errors import SensorFault

READ_INPUT_REGISTERS = 4
_EXCEPTION = 0x80
_HEAD_BYTES, _CRC_BYTES = 3, 2
_MAX_STALE_BYTES = 512


def crc16(data):
    """CRC-16/MODBUS: polynomial 0xA001, from 0xFFFF on."""
    crc = 0xFFFF
    for byte in data:
        crc ^= byte
        for _ in range(8):
            crc = crc >> 1 ^ 0xA001 if crc & 1 else crc >> 1
    return crc


def request(address, function, first, count):
    """The frame that asks for `count` registers from `first` on."""
    body = bytes((address, function, first >> 8, first & 0xFF, count >> 8, count & 0xFF))
    crc = crc16(body)
    return body + bytes((crc & 0xFF, crc >> 8))


def read_input_registers(uart, address, first, count, timeout_ms):
    """Ask, and return the registers as integers.

    Raises SensorFault: `absent` (no answer), `timeout` (an answer that stops short), `crc`, or
    `no-data` (an exception, or an answer to something else).
    """
    stale = 0
    while uart.any() and stale < _MAX_STALE_BYTES:
        stale += len(uart.read(uart.any()) or b"")
    uart.write(request(address, READ_INPUT_REGISTERS, first, count))
    expected = _HEAD_BYTES + 2 * count + _CRC_BYTES
    answer = b""
    begin = ticks_ms()
    while len(answer) < expected:
        answer += uart.read(expected - len(answer)) or b""
        if len(answer) >= 2 and answer[1] & _EXCEPTION:
            expected = _HEAD_BYTES + _CRC_BYTES
        if ticks_diff(ticks_ms(), begin) >= timeout_ms:
            break
        if len(answer) < expected:
            sleep_ms(1)
    if not answer:
        raise SensorFault("absent")
    if len(answer) < expected:
        raise SensorFault("timeout", f"{len(answer)} of {expected} bytes")
    if crc16(answer[:-2]) != answer[-2] | answer[-1] << 8:
        raise SensorFault("crc")
    if answer[1] & _EXCEPTION:
        raise SensorFault("no-data", f"exception {answer[2]}")
    # 0xF8 is the address that any one meter answers to, with its own.
    if answer[1] != READ_INPUT_REGISTERS or answer[2] != 2 * count:
        raise SensorFault("no-data", "answers something else")
    return [answer[at] << 8 | answer[at + 1] for at in range(3, 3 + 2 * count, 2)]
