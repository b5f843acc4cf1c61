// Feeds one array with the inputs of the files left, top, switch and capture, a line an edge, and prints every sum after
// every edge. The macro ARRAY instantiates the array.
`timescale 1ns / 1ps
module testbench;
    parameter ROWS = 4, COLS = 4, EDGES = 16;
    reg clk = 0;
    reg [ROWS*8-1:0] left, lefts[0:EDGES-1];
    reg [COLS*8-1:0] top, tops[0:EDGES-1];
    reg [ROWS-1:0] switch_in, switches[0:EDGES-1];
    reg [COLS-1:0] capture, captures[0:EDGES-1];
    wire [ROWS*COLS*32-1:0] all_sums;
    integer cycle, i;

    `ARRAY

    initial begin
        $readmemh("left", lefts);
        $readmemh("top", tops);
        $readmemb("switch", switches);
        $readmemb("capture", captures);
        for (cycle = 0; cycle < EDGES; cycle = cycle + 1) begin
            left = lefts[cycle];
            top = tops[cycle];
            switch_in = switches[cycle];
            capture = captures[cycle];
            #1 clk = 1;
            #1 clk = 0;
            for (i = 0; i < ROWS * COLS; i = i + 1) $write("%0d ", $signed(all_sums[i*32+:32]));
            $write("\n");
        end
        $finish;
    end
endmodule
