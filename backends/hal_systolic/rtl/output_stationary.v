// Output-stationary systolic array: 8-bit operands, 32-bit sums. The registers of pe.py's OutputStationary.
//
// Operands move right and down; where capture is set, the sums of that column move down and leave at the bottom.
module output_stationary #(
    parameter ROWS = 4,
    parameter COLS = 4
) (
    input clk,
    input [ROWS*8-1:0] left,
    input [COLS*8-1:0] top,
    input [ROWS-1:0] switch_in,
    input [COLS-1:0] capture,
    output [ROWS*COLS*32-1:0] all_sums
);
    reg signed [7:0] right[0:ROWS*COLS-1], down[0:ROWS*COLS-1];
    reg signed [31:0] sum[0:ROWS*COLS-1];

    genvar row, col;
    generate
        for (row = 0; row < ROWS; row = row + 1) begin : each_row
            for (col = 0; col < COLS; col = col + 1) begin : each_col
                localparam HERE = row * COLS + col;
                wire signed [7:0] from_left, from_above;
                wire signed [31:0] sum_above;

                if (row == 0) begin : first_row
                    assign from_above = top[col*8+:8];
                    assign sum_above = 32'sd0;
                end else begin : other_row
                    assign from_above = down[HERE-COLS];
                    assign sum_above = sum[HERE-COLS];
                end
                if (col == 0) begin : first_col
                    assign from_left = left[row*8+:8];
                end else begin : other_col
                    assign from_left = right[HERE-1];
                end
                assign all_sums[HERE*32+:32] = sum[HERE];

                initial begin
                    right[HERE] = 0;
                    down[HERE] = 0;
                    sum[HERE] = 0;
                end
                always @(posedge clk) begin
                    right[HERE] <= from_left;
                    down[HERE] <= from_above;
                    sum[HERE] <= capture[col] ? sum_above : sum[HERE] + from_left * from_above;
                end
            end
        end
    endgenerate
endmodule
