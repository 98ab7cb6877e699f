;; With an argument: writes the square of that number on a line. Without: adds up the numbers on the
;; lines of standard input.
(module
  (import "wasi_snapshot_preview1" "fd_read" (func $fd_read (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "fd_write" (func $fd_write (param i32 i32 i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_sizes_get" (func $sizes (param i32 i32) (result i32)))
  (import "wasi_snapshot_preview1" "args_get" (func $args (param i32 i32) (result i32)))
  (memory (export "memory") 4)

  ;; Adds up the numbers in the text from $at to $end; anything but a digit ends a number.
  (func $total (param $at i32) (param $end i32) (result i64)
    (local $sum i64) (local $number i64) (local $byte i32)
    (block $done
      (loop $next
        (br_if $done (i32.ge_u (local.get $at) (local.get $end)))
        (local.set $byte (i32.sub (i32.load8_u (local.get $at)) (i32.const 48)))
        (local.set $at (i32.add (local.get $at) (i32.const 1)))
        (if (i32.lt_u (local.get $byte) (i32.const 10))
          (then (local.set $number (i64.add
            (i64.mul (local.get $number) (i64.const 10)) (i64.extend_i32_u (local.get $byte)))))
          (else
            (local.set $sum (i64.add (local.get $sum) (local.get $number)))
            (local.set $number (i64.const 0))))
        (br $next)))
    (i64.add (local.get $sum) (local.get $number)))

  ;; Writes a number and a newline; the digits grow down from address 2048.
  (func $print (param $number i64)
    (local $at i32)
    (local.set $at (i32.const 2047))
    (i32.store8 (local.get $at) (i32.const 10))
    (loop $digit
      (local.set $at (i32.sub (local.get $at) (i32.const 1)))
      (i32.store8 (local.get $at) (i32.add (i32.const 48)
        (i32.wrap_i64 (i64.rem_u (local.get $number) (i64.const 10)))))
      (local.set $number (i64.div_u (local.get $number) (i64.const 10)))
      (br_if $digit (i64.ne (local.get $number) (i64.const 0))))
    (i32.store (i32.const 0) (local.get $at))
    (i32.store (i32.const 4) (i32.sub (i32.const 2048) (local.get $at)))
    (drop (call $fd_write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8))))

  ;; Reads all of standard input to address 65536; returns where it ends.
  (func $read (result i32)
    (local $end i32)
    (local.set $end (i32.const 65536))
    (loop $more
      (i32.store (i32.const 0) (local.get $end))
      (i32.store (i32.const 4) (i32.const 65536))
      (drop (call $fd_read (i32.const 0) (i32.const 0) (i32.const 1) (i32.const 8)))
      (local.set $end (i32.add (local.get $end) (i32.load (i32.const 8))))
      (br_if $more (i32.load (i32.const 8))))
    (local.get $end))

  (func (export "_start")
    (local $number i64)
    (drop (call $sizes (i32.const 16) (i32.const 20)))
    (if (i32.gt_u (i32.load (i32.const 16)) (i32.const 1))
      (then
        (drop (call $args (i32.const 1024) (i32.const 4096)))
        (local.set $number (call $total
          (i32.load (i32.const 1028)) (i32.add (i32.const 4095) (i32.load (i32.const 20)))))
        (call $print (i64.mul (local.get $number) (local.get $number))))
      (else (call $print (call $total (i32.const 65536) (call $read)))))))
