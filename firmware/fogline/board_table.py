"""What each board can do, and which pins its buses have.

Made by `python -m tools.board_tables` from hardware/boards/*.toml: edit those.
Each is a text in JSON: names within it stay off the heap of a board that is another one.
i2c: [id, sda, scl, largest Hz]; spi: [id, sck, mosi, miso, largest Hz]; uart: [id, tx, rx];
adc and pin: the GPIO's number.
"""

TABLES = (
    (
        '{"board":"esp32-c3",'
        '"capabilities":"calibrated_adc deep_sleep native_code pins tls watchdog wifi",'
        '"board_class":"esp32c3","arena_bytes":49152,"i2c":{"i2c0":[0,5,6,400000]},'
        '"spi":{"spi0":[1,6,7,5,10000000]},"uart":{"uart1":[1,7,10]},"adc":{"adc0":0,'
        '"adc1":1,"adc2":3},"pin":{"cs0":10,"d0":4,"d1":3}}'
    ),
    (
        '{"board":"esp32-devkit",'
        '"capabilities":"calibrated_adc deep_sleep native_code pins tls watchdog wifi",'
        '"board_class":"esp32","arena_bytes":49152,"i2c":{"i2c0":[0,21,22,400000]},'
        '"spi":{"spi0":[2,18,23,19,10000000]},"uart":{"uart1":[1,25,26],"uart2":[2,17,16]},'
        '"adc":{"adc0":36,"adc1":39,"adc2":34,"adc3":35},"pin":{"cs0":4,"d0":32,"d1":33,'
        '"d2":27,"d3":14,"d4":13}}'
    ),
    (
        '{"board":"esp32-s3",'
        '"capabilities":"calibrated_adc deep_sleep native_code pins tls watchdog wifi",'
        '"board_class":"esp32s3","arena_bytes":98304,"i2c":{"i2c0":[0,8,9,400000],'
        '"i2c1":[1,39,42,400000]},"spi":{"spi0":[1,12,11,13,10000000]},"uart":{"uart1":[1,'
        '17,18],"uart2":[2,15,16]},"adc":{"adc0":1,"adc1":2,"adc2":4},"pin":{"cs0":10,'
        '"d0":5,"d1":6,"d2":7,"d3":14,"d4":21,"d5":47,"d6":40,"d7":41}}'
    ),
    (
        '{"board":"pico","capabilities":"native_code pins watchdog","board_class":"rp2040",'
        '"arena_bytes":98304,"i2c":{"i2c0":[0,4,5,400000],"i2c1":[1,6,7,400000]},'
        '"spi":{"spi0":[0,18,19,16,10000000]},"uart":{"uart0":[0,0,1],"uart1":[1,8,9]},'
        '"adc":{"adc0":26,"adc1":27,"adc2":28},"pin":{"cs0":17,"d0":10,"d1":11,"d2":12,'
        '"d3":13,"d4":14,"d5":15,"d6":20,"d7":21}}'
    ),
    (
        '{"board":"pico-w","capabilities":"native_code pins tls watchdog wifi",'
        '"board_class":"rp2040w","arena_bytes":65536,"i2c":{"i2c0":[0,4,5,400000],'
        '"i2c1":[1,6,7,400000]},"spi":{"spi0":[0,18,19,16,10000000]},"uart":{"uart0":[0,0,'
        '1],"uart1":[1,8,9]},"adc":{"adc0":26,"adc1":27,"adc2":28},"pin":{"cs0":17,"d0":10,'
        '"d1":11,"d2":12,"d3":13,"d4":14,"d5":15,"d6":20,"d7":21}}'
    ),
    (
        '{"board":"pico2-w","capabilities":"native_code pins tls watchdog wifi",'
        '"board_class":"rp2350w","arena_bytes":196608,"i2c":{"i2c0":[0,4,5,400000],'
        '"i2c1":[1,6,7,400000]},"spi":{"spi0":[0,18,19,16,10000000]},"uart":{"uart0":[0,0,'
        '1],"uart1":[1,8,9]},"adc":{"adc0":26,"adc1":27,"adc2":28},"pin":{"cs0":17,"d0":10,'
        '"d1":11,"d2":12,"d3":13,"d4":14,"d5":15,"d6":20,"d7":21}}'
    ),
    (
        '{"board":"qemu-arm","capabilities":"native_code","board_class":"cortex-m3",'
        '"arena_bytes":49152}'
    ),
    '{"board":"qemu-rv32","capabilities":"native_code","board_class":"rv32","arena_bytes":49152}',
    (
        '{"board":"unix","capabilities":"exit_status native_code network tls",'
        '"board_class":"unix","arena_bytes":1048576}'
    ),
)
