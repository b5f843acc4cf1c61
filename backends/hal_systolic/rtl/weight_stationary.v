// Weight-stationary systolic array: 8-bit operands, 32-bit sums. The registers of pe.py's WeightStationary, edge by edge.
//
// BUFFERS = 2: weights come down a pipe, a column is captured into its shadow, and a switch that travels right with the
// activations makes the shadow active. BUFFERS = 1: the active weights move down while capture is set.
module weight_stationary #(
    parameter ROWS = 4,
    parameter COLS = 4,
    parameter BUFFERS = 2
) (
    input clk,
    input [ROWS*8-1:0] left,
    input [COLS*8-1:0] top,
    input [ROWS-1:0] switch_in,
    input [COLS-1:0] capture,
    output [ROWS*COLS*32-1:0] all_sums
);
    reg signed [7:0] pipe[0:ROWS*COLS-1], shadow[0:ROWS*COLS-1], active[0:ROWS*COLS-1], activation[0:ROWS*COLS-1];
    reg signed [31:0] sum[0:ROWS*COLS-1];
    reg switched[0:ROWS*COLS-1];

    genvar row, col;
    generate
        for (row = 0; row < ROWS; row = row + 1) begin : each_row
            for (col = 0; col < COLS; col = col + 1) begin : each_col
                localparam HERE = row * COLS + col;
                wire signed [7:0] weight_above, activation_left, weight;
                wire signed [31:0] sum_above;
                wire turn;

                if (row == 0) begin : first_row
                    assign weight_above = top[col*8+:8];
                    assign sum_above = 32'sd0;
                end else begin : other_row
                    assign weight_above = BUFFERS == 2 ? pipe[HERE-COLS] : active[HERE-COLS];
                    assign sum_above = sum[HERE-COLS];
                end
                if (col == 0) begin : first_col
                    assign activation_left = left[row*8+:8];
                    assign turn = switch_in[row];
                end else begin : other_col
                    assign activation_left = activation[HERE-1];
                    assign turn = switched[HERE-1];
                end
                if (BUFFERS == 2) assign weight = turn ? shadow[HERE] : active[HERE];
                else assign weight = capture[0] ? weight_above : active[HERE];
                assign all_sums[HERE*32+:32] = sum[HERE];

                initial begin
                    pipe[HERE] = 0;
                    shadow[HERE] = 0;
                    active[HERE] = 0;
                    activation[HERE] = 0;
                    sum[HERE] = 0;
                    switched[HERE] = 0;
                end
                always @(posedge clk) begin
                    pipe[HERE] <= weight_above;
                    if (capture[col]) shadow[HERE] <= weight_above;
                    active[HERE] <= weight;
                    activation[HERE] <= activation_left;
                    switched[HERE] <= turn;
                    sum[HERE] <= sum_above + activation_left * weight;
                end
            end
        end
    endgenerate
endmodule
